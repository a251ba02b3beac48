"""A router that goes by keywords, a loader that records, and an app that answers with what it received."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from traitroute.adapters import Adapter
from traitroute.router import RoutingDecision
from traitroute.serving.loading import LoadError
from traitroute.serving.middleware import RoutingMiddleware
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

ADAPTERS = ("code", "cook", "broken")
Headers = Mapping[str, str] | list[tuple[str, str]] | None


class KeywordRouter:
    """Routes text to the adapter it mentions first, with a gain of +0.134 [0.1, 0.2], and fails on demand."""

    def __init__(self) -> None:
        self.routed: list[str] = []
        self.options: dict[str, Any] = {}

    def route(
        self,
        request: str,
        /,
        *,
        among: Collection[str] | None = None,
        least_gain: float | None = None,
        explain: bool = False,
        held: Collection[str] = (),
        worth: float = 0.0,
    ) -> RoutingDecision:
        self.routed.append(request)
        self.options = {"among": among, "least_gain": least_gain, "explain": explain}
        if "slow" in request:
            time.sleep(0.3)
        if "crash" in request:
            raise ZeroDivisionError("crash and the request's text")
        words = [w for w in request.split() if w in ADAPTERS and (among is None or w in among)]
        adapter = words[0] if words and (least_gain or 0.0) < 0.1 else None
        return RoutingDecision(
            adapter=adapter,
            gain=0.134 if adapter else 0.0,
            interval=(0.1, 0.2) if adapter else (0.0, 0.0),
            margin=0.05,
            reason=f"chosen for\r\n{adapter} – surely" + " long" * 100,
            demand={"trait 1": 0.123456789},
            contributions={},
            nearest_tasks=(),
            ranking=(),
            profile_version=7,
        )


class RecordingLoader:
    """Loads every adapter but `broken`."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    async def ensure(self, name: str) -> None:
        if name == "broken":
            raise LoadError("broken: rank 64 is greater than max_lora_rank 16")
        self.loaded.append(name)


class Server:
    """An app behind one routing middleware: `POST` is answered with the body and headers received."""

    def __init__(self, state: ServerState) -> None:
        app = Starlette(routes=[Route("/{path:path}", _echo, methods=["POST"])])
        self.app = RoutingMiddleware(app, state=state)

    def post(self, path: str, body: Any, headers: Headers = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return asyncio.run(self.request("POST", path, content=content, headers=headers))

    def get(self, path: str) -> httpx.Response:
        return asyncio.run(self.request("GET", path))

    def chat(self, *texts: str, headers: Headers = None, **more: Any) -> httpx.Response:
        messages = [{"role": "user", "content": text} for text in texts]
        body = {"model": "auto", "messages": messages, **more}
        return self.post("/v1/chat/completions", body, headers)

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **more)


async def _echo(request: Request) -> Response:
    body = (await request.body()).decode("latin-1")
    return JSONResponse({"body": body, "headers": dict(request.headers)})


def offered(*names: str, **tags: tuple[str, ...]) -> dict[str, Adapter]:
    """Adapters that may be served, with their tags."""
    one = Adapter(
        name="one", base_model="tiny", base_digest="0" * 64, weights_digest="1" * 64, rank=8, target_modules=("q_proj",)
    )
    # Copies, for the pending replacements' names, NAME@VERSION, are no adapters' own.
    return {name: one.model_copy(update={"name": name, "tags": tags.get(name, ())}) for name in (*names, *tags)}


@pytest.fixture
def offer(state: ServerState) -> Callable[..., None]:
    """Replace the adapters that may be served."""

    def replaced(*names: str) -> None:
        state.snapshot = replace(state.snapshot, adapters=offered(*names))

    return replaced


@pytest.fixture
def router() -> KeywordRouter:
    return KeywordRouter()


@pytest.fixture
def state(router: KeywordRouter) -> ServerState:
    adapters = offered(*ADAPTERS, code=("work", "en"), cook=("home", "en"))
    return ServerState(
        base_names=("tiny", "base"),
        loader=RecordingLoader(),
        snapshot=RegistrySnapshot(adapters=adapters, router=router),
    )


@pytest.fixture
def serve() -> Callable[[ServerState], Server]:
    return Server


@pytest.fixture
def server(state: ServerState) -> Server:
    return Server(state)
