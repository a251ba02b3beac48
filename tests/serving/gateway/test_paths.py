"""What reaches an upstream: the paths on its list, as they were compared, and nothing else that a client can write."""

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from traitroute.adapters import Registry
from traitroute.serving.gateway import GatewayOptions, Load, gateway_app

from .conftest import CHAT, Gateway, Serve, Upstream, ask, raw

LOAD = json.dumps({"lora_name": "cook@0", "lora_path": "/x", "load_inplace": True}).encode()
HIDDEN = [
    "/x/../v1/load_lora_adapter",
    "/v1/./load_lora_adapter",
    "/v1/chat/../load_lora_adapter",
    "/v1/x/../../../other/secret",
    "/v1/%2e%2e/load_lora_adapter",
    "/v1/%2E./load_lora_adapter",
    "/v1/%252e%252e/v1/load_lora_adapter",
    "/v1/..%2fload_lora_adapter",
    "/v1%2Fload_lora_adapter",
    "/v1%2Fchat%2Fcompletions",
    "/v1%252Fload_lora_adapter",
    "/v1/..\\load_lora_adapter",
    "/v1\\load_lora_adapter",
    "/v1/%5cload_lora_adapter",
    "//v1/load_lora_adapter",
    "/v1//load_lora_adapter",
    "//v1/chat/completions",
    "/v1/load_lora_adapter;x",
    "/v1;x/load_lora_adapter",
    "/v1/chat/completions;/../../load_lora_adapter",
    "/v1/load_lora_adapter%00",
    "/v1/load_lora_adapter%20",
    "/v1/load_lora_adapter%0d%0ax:%20y",
    "/v1/load%5Flora_adapter",
    "/v1/load_lora_adapter/",
    "/V1/LOAD_LORA_ADAPTER",
    "/v1/models/../load_lora_adapter",
    "/v1/models/%2e%2e%2fload_lora_adapter",
    "/v1/responses/../load_lora_adapter",
    "/v1/responses/..%2fload_lora_adapter/cancel",
    "/health/../v1/load_lora_adapter",
    "/%ef%bc%8fv1/load_lora_adapter",
    "http://127.0.0.1/v1/load_lora_adapter",
    "http:/v1/chat/../load_lora_adapter",
    "*",
    "/v1/load_lora_adapter?/../v1/chat/completions",
    "/v1/chat/completions%3f/../../load_lora_adapter",
]
CLOSED = [
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("POST", "/load_lora_adapter"),
    ("POST", "/load_lora_adapter_from_tensors"),
    ("POST", "/unload_lora_adapter"),
    ("POST", "/adapters"),
    ("POST", "/invocations"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/pull"),
    ("POST", "/api/generate"),
    ("POST", "/update_weights_from_disk"),
    ("POST", "/update_weights"),
    ("POST", "/flush_cache"),
    ("GET", "/flush_cache"),
    ("POST", "/sleep"),
    ("POST", "/wake_up"),
    ("POST", "/collective_rpc"),
    ("POST", "/reset_prefix_cache"),
    ("POST", "/start_profile"),
    ("POST", "/pause"),
    ("POST", "/scale_elastic_ep"),
    ("GET", "/server_info"),
    ("GET", "/openapi.json"),
    ("POST", "/v1/files"),
    ("POST", "/v1/audio/transcriptions"),
    ("GET", "/v1/realtime"),
    ("GET", "/"),
    ("POST", "/"),
]


def request(target: str, method: str = "POST", body: bytes = LOAD) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer user\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


@pytest.mark.parametrize("prefix", ["", "/openai"])
def test_no_way_of_writing_a_path_leads_past_the_list(gateway: Gateway, serve: Serve, prefix: str) -> None:
    upstream = serve(Upstream())
    upstream.loads = []
    client = gateway(upstream.url + prefix, key="user", upstream_key="operator")
    for target in HIDDEN:
        assert raw(client, request(target)) in (400, 404), target
    assert upstream.requests == []
    assert upstream.loads == []


@pytest.mark.parametrize("owner", ["vllm", "sglang", "library"])
def test_what_is_no_inference_is_not_handed_on(gateway: Gateway, serve: Serve, owner: str) -> None:
    upstream = Upstream()
    upstream.cards[0]["owned_by"] = owner
    client = gateway(serve(upstream).url, upstream_key="operator")
    for method, path in CLOSED:
        assert raw(client, request(path, method)) == 404, path
    for method in ("GET", "PUT", "DELETE", "PATCH", "CONNECT", "BREW"):
        assert raw(client, request(CHAT, method)) in (400, 405), method
    assert client.get(CHAT).headers["allow"] == "POST"
    assert upstream.requests == []


SHARED = [CHAT, "/v1/completions"]
OPENAI = [*SHARED, "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings"]


@pytest.mark.parametrize(
    ("owner", "load", "open_", "closed"),
    [
        ("vllm", Load.VLLM, [*OPENAI, "/tokenize", "/v1/rerank", "/pooling"], ["/generate"]),
        ("library", Load.NONE, OPENAI, ["/generate", "/encode"]),
        ("sglang", Load.NONE, [*OPENAI, "/generate", "/v1/tokenize"], ["/pooling", "/v2/rerank"]),
        ("lorax", Load.LORAX, SHARED, ["/generate", "/v1/embeddings", "/tokenize"]),
        ("organization-owner", Load.NONE, [*SHARED, "/v1/embeddings", "/tokenize"], ["/v1/responses", "/generate"]),
    ],
)
def test_each_make_of_server_is_asked_at_its_own_paths(
    gateway: Gateway, serve: Serve, owner: str, load: Load, open_: list[str], closed: list[str]
) -> None:
    upstream = Upstream()
    upstream.cards[0]["owned_by"] = owner
    client = gateway(serve(upstream).url, load=load)
    for path in open_:
        assert client.post(path, json={"model": "base", "text": "hi"}).status_code == 200, path
    assert [r["target"].decode() for r in upstream.requests] == open_
    for path in closed:
        assert client.post(path, json={"model": "base", "text": "hi"}).status_code == 404, path
    assert len(upstream.requests) == len(open_)


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/v1/models/base", CHAT, "/v1/skills"])
def test_a_wrong_method_is_an_error_in_openais_form(gateway: Gateway, serve: Serve, path: str) -> None:
    upstream = serve(Upstream())
    response = gateway(upstream.url).delete(path)
    assert response.status_code == 405
    assert response.json()["error"]["code"] == 405
    assert ("POST" if path == CHAT else "GET") in response.headers["allow"]
    assert upstream.requests == []


def test_a_kept_response_is_read_and_cancelled_by_its_id(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    client = gateway(upstream.url)
    assert client.get("/v1/responses/resp_1").status_code == 200
    assert client.post("/v1/responses/resp_1/cancel").status_code == 200
    assert client.delete("/v1/responses/resp_1").status_code == 405
    assert client.post("/v1/responses/resp_1/cancel/x").status_code == 404
    assert [r["method"] for r in upstream.requests] == ["GET", "POST"]


def test_a_slash_at_the_end_changes_nothing(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream("cook"))
    client = gateway(upstream.url)
    asked = {
        "model": "auto",
        "messages": [{"role": "user", "content": "how long do I boil eggs a"}],
    }
    response = client.post(f"{CHAT}/", json=asked)
    assert (response.status_code, response.json()["model"]) == (200, "cook")
    assert response.headers["x-traitroute-adapter"] == "cook"
    assert upstream.requests[-1]["target"] == CHAT.encode()
    assert client.get("/v1/models/").json() == client.get("/v1/models").json()
    assert client.get("/health/").status_code == 200


def test_a_redirect_of_an_upstream_is_not_handed_on(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    upstream.redirect = "http://inside:8000/v1/chat/completions/"
    response = ask(gateway(upstream.url), "hi", model="base", follow_redirects=False)
    assert response.status_code == 502
    assert "location" not in response.headers
    assert "inside" not in response.text


def test_no_address_of_an_upstream_is_handed_on(gateway: Gateway, serve: Serve) -> None:
    response = ask(gateway(serve(Upstream()).url), "hi", model="base")
    assert "content-location" not in response.headers


@pytest.mark.parametrize("path", ["/v1/realtime", CHAT, "/mcp", "/v1/../x"])
def test_no_websocket_is_opened(registry: Path, path: str) -> None:
    upstreams = GatewayOptions(("http://127.0.0.1:9",))
    app = gateway_app(upstreams, lambda: Registry.open(registry, read_only=True))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def connect() -> None:
        scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "headers": []}
        await app({**scope, "query_string": b"", "subprotocols": []}, receive, send)

    asyncio.run(connect())
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_a_model_with_a_slash_in_its_name_is_found_by_openais_client(gateway: Gateway, serve: Serve) -> None:
    client = gateway(serve(Upstream("cook", base="meta/tiny")).url)
    for path in ("/v1/models/meta/tiny", "/v1/models/meta%2Ftiny"):
        assert client.get(path).json()["id"] == "meta/tiny", path
    assert client.get("/v1/models/cook").json()["parent"] == "base"
    assert client.get("/v1/models/auto").status_code == 200
    assert client.get("/v1/models/nothing").status_code == 404


WORDS = "v1 chat completions load_lora_adapter x openai models responses . .. ? # @h:1 ; ;a=b \\"
ENCODED = "%2e %2e%2e %252e%252e %2f %5c %00"
PIECES = st.sampled_from(["", *WORDS.split(), *ENCODED.split()])
SEPARATORS = st.sampled_from(["/", "//", "%2f", "%252f", "\\", "/./", "/../", ""])
TARGETS = st.lists(st.tuples(SEPARATORS, PIECES), min_size=1, max_size=8).map(
    lambda parts: "".join(separator + piece for separator, piece in parts)
)


@pytest.mark.slow
def test_whatever_is_written_only_a_listed_path_arrives(gateway: Gateway, serve: Serve, stack: ExitStack) -> None:
    upstream = serve(Upstream())
    upstream.loads = []
    client = gateway(f"{upstream.url}/openai")
    body = json.dumps({"model": "tiny"}).encode()

    @given(target=TARGETS, method=st.sampled_from(["POST", "GET", "DELETE"]))
    @example(target="/openai/v1/chat/completions", method="POST")
    @example(target=f"{CHAT}/", method="POST")
    @settings(max_examples=300)
    def check(target: str, method: str) -> None:
        before = len(upstream.requests)
        raw(client, request(target, method, body))
        for arrived in upstream.requests[before:]:
            path = arrived["target"].partition(b"?")[0].decode()
            assert method == arrived["method"]
            assert path == f"/openai{CHAT}" or path.startswith("/openai/v1/responses/")
            assert not {".", "..", ""} & set(path[1:].split("/"))

    check()
    assert upstream.requests
    assert upstream.loads == []
