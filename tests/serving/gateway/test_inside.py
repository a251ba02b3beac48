"""The gateway inside another server's process: in front of an app of its own, asked without a network between."""

import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from traitroute.adapters import AdapterState, InputError, Registry
from traitroute.serving.gateway import GatewayOptions
from traitroute.serving.gateway.inside import HERE, Inside
from traitroute.serving.gateway.production_stack import route

from .conftest import CHAT, TOPICS, Upstream, ask, eventually, running

EGGS = "how long do I boil eggs"
Host = Callable[..., httpx.Client]


class App(Starlette):
    """A server of its own: it has pages, a state that it sets up on its start, and hands models' requests on."""

    def __init__(self, upstream: Upstream) -> None:
        async def page(request: Request) -> JSONResponse:
            return JSONResponse({"ours": request.url.path, "started": request.app.state.started})

        async def models(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["app"] is self
            await upstream(scope, receive, send)

        super().__init__(routes=[Route(p, page) for p in ("/health", "/version")], lifespan=self.run)
        self.router.default = models

    @asynccontextmanager
    async def run(self, _: object) -> AsyncIterator[None]:
        self.state.started = True
        yield


@pytest.fixture
def host(stack: ExitStack, registry: Path) -> Host:
    def run(upstream: Upstream, **more: Any) -> httpx.Client:
        app = App(upstream)
        options = GatewayOptions(upstreams=(HERE,))
        app.add_middleware(Inside, registry=str(registry), options=options, beside=("/version",), **more)
        return stack.enter_context(httpx.Client(base_url=stack.enter_context(running(app)), timeout=20))

    return run


def test_the_app_is_asked_for_the_adapter_that_was_chosen(host: Host) -> None:
    upstream = Upstream(*TOPICS)
    client = host(upstream)
    answer = ask(client, EGGS)
    assert (answer.json(), answer.headers["x-traitroute-adapter"]) == ({"model": "cook"}, "cook")
    assert ask(client, EGGS, model="critic").json() == {"model": "critic"}
    assert ask(client, EGGS, model="nobody").status_code == 404
    assert client.get("/v1/skills").status_code == 200
    assert [card["id"] for card in client.get("/v1/models").json()["data"]][:2] == ["base", "auto"]


def test_pages_stay_the_apps_own_only_where_that_was_said(host: Host) -> None:
    client = host(Upstream())
    assert client.get("/version").json() == {"ours": "/version", "started": True}
    assert client.get("/health").json()["upstreams"][0]["healthy"] is True


def test_streams_arrive_part_by_part_and_end_with_the_client(host: Host) -> None:
    upstream = Upstream(*TOPICS)
    client = host(upstream)
    body = {"model": "auto", "messages": [{"role": "user", "content": EGGS}], "stream": True}
    with client.stream("POST", CHAT, json=body) as answer:
        times = [(time.monotonic(), part) for part in answer.iter_text()]
    assert "".join(part for _, part in times).count("data: ") == 6
    assert times[-1][0] - times[0][0] > 0.2
    assert not upstream.aborted.is_set()
    with client.stream("POST", CHAT, json=body) as answer:
        next(answer.iter_text())
    assert upstream.aborted.wait(10)


def test_what_the_app_is_asked_is_not_logged(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        client = host(Upstream(*TOPICS))
        assert ask(client, EGGS).status_code == 200
    told = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert told and not any(f"{HERE}/" in line for line in told)


def test_an_app_that_fails_is_a_502(host: Host) -> None:
    class Failing(Upstream):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/v1/embeddings":
                raise RuntimeError("of its own")
            await super().__call__(scope, receive, send)

    client = host(Failing(*TOPICS))
    answer = client.post("/v1/embeddings", json={"model": "auto", "input": EGGS})
    assert answer.status_code == 502
    assert ask(client, EGGS).status_code == 200


def test_an_app_is_asked_nothing_before_it_is_ready(host: Host) -> None:
    upstream, ready = Upstream(*TOPICS), threading.Event()
    client = host(upstream, is_ready=ready.is_set)
    assert ask(client, EGGS).status_code == 503
    assert not upstream.requests and not upstream.probed
    ready.set()
    eventually(lambda: ask(client, EGGS).json() == {"model": "cook"})


def test_a_broken_chooser_means_base_and_a_reason(host: Host, registry: Path) -> None:
    registry.write_bytes(b"no registry")
    answer = ask(host(Upstream(*TOPICS)), EGGS)
    assert (answer.json(), answer.headers["x-traitroute-adapter"]) == ({"model": "tiny"}, "base")
    assert answer.headers["x-traitroute-reason"].startswith("no-profile")


def test_names_with_a_digest_stand_for_these_weights_alone(host: Host, registry: Path) -> None:
    with Registry.open(registry) as store:
        digests = {name: store.adapter(name).weights_digest for name in TOPICS}
    # As a router lists what its command line says, without roots.
    upstream = Upstream()
    names = [f"cook@{digests['cook']}", f"critic@{digests['coder']}"]
    upstream.cards = [{"id": name, "owned_by": "vllm"} for name in ("tiny", *names)]
    client = host(upstream)
    assert ask(client, EGGS).json() == {"model": names[0]}
    assert ask(client, "hi", model="coder").json() == {"model": names[1]}
    assert ask(client, "hi", model="critic").status_code == 400
    assert [ask(client, "hi", model=name).status_code for name in names] == [404, 404]
    with Registry.open(registry) as store:
        store.set_state("cook", AdapterState.DISABLED)
    eventually(lambda: ask(client, EGGS).json() == {"model": "tiny"})


def test_an_app_with_it_can_be_pickled_as_ray_does(registry: Path) -> None:
    app = Starlette()
    app.add_middleware(Inside, registry=str(registry), options=GatewayOptions(upstreams=(HERE,)))
    [middleware] = cloudpickle.loads(cloudpickle.dumps(app.user_middleware))
    assert middleware.kwargs["registry"] == str(registry)


def test_production_stacks_router_is_routed_once_and_keeps_its_pages(
    stack: ExitStack, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(Upstream("chef"))
    monkeypatch.delenv("TRAITROUTE_REGISTRY", raising=False)
    with pytest.raises(InputError, match="set TRAITROUTE_REGISTRY"):
        route(app)
    monkeypatch.setenv("TRAITROUTE_REGISTRY", str(registry))
    monkeypatch.setenv("TRAITROUTE_ALIASES", "cook=chef,base=tiny")
    route(app)
    route(app)
    assert len(app.user_middleware) == 1
    client = stack.enter_context(httpx.Client(base_url=stack.enter_context(running(app)), timeout=20))
    assert client.get("/health").json()["ours"] == "/health"
    assert ask(client, EGGS).json() == {"model": "chef"}
    assert json.loads(client.get("/v1/models/cook").text)["parent"] == "base"
