from argparse import Namespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from traitroute.serving.api_routes import open_paths
from traitroute.serving.http.keys import ApiKeys, KeyCheck


def scope(authorization: str | None) -> dict[str, Any]:
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    return {"type": "http", "path": "/v1/models", "headers": headers}


@pytest.mark.parametrize(
    ("authorization", "admitted"),
    [
        ("Bearer one", True),
        ("bearer two", True),
        ("Bearer three", False),
        ("Basic one", False),
        ("one", False),
        ("Bearer ", False),
        (None, False),
    ],
)
def test_only_requests_with_one_of_the_keys_are_admitted(authorization: str | None, admitted: bool) -> None:
    assert (ApiKeys(["one", "two"]).find(scope(authorization)) is not None) is admitted


def test_without_keys_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    for args in (Namespace(api_key=None), Namespace(), Namespace(api_key=[""])):
        assert not ApiKeys.of_server(args)


def test_the_servers_keys_are_the_commands_before_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "e")
    assert ApiKeys.of_server(Namespace(api_key=None)).find(scope("Bearer e"))
    assert ApiKeys.of_server(Namespace(api_key="c")).find(scope("Bearer c"))
    assert not ApiKeys.of_server(Namespace(api_key=["c"])).find(scope("Bearer e"))


OPEN = open_paths()
BEARER = {"authorization": "Bearer one"}


async def everything(scope: Any, receive: Any, send: Any) -> None:
    """A server that answers everything, as vLLM does outside `/v1`, with the headers that it received."""
    if scope["type"] == "websocket":
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.send_text("answered")
        await socket.close()
    elif scope["type"] == "http":
        await JSONResponse(dict(Request(scope).headers))(scope, receive, send)


def client(*keys: str, also: frozenset[str] = frozenset()) -> TestClient:
    checked = KeyCheck(everything, keys=ApiKeys(keys), message="a key is wanted", open_paths=OPEN | also)
    return TestClient(checked)


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "TRACE"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/invocations",
        "/invocations/",
        "//invocations",
        "/%69nvocations",
        "/health/../invocations",
        "/health/%2e%2e/invocations",
        "/health%00",
        "/HEALTH",
        "/health/",
        "//health",
        "/metricsx",
        "/metrics/x",
        "/adapters",
        "/",
        "/collective_rpc",
        "/unheard/of",
    ],
)
def test_what_is_not_listed_as_open_asks_for_a_key(method: str, path: str) -> None:
    server = client("one", also=frozenset({"/metrics"}))
    refused = server.request(method, f"http://testserver{path}")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert server.request(method, f"http://testserver{path}", headers=BEARER).status_code == 200


def test_what_is_open_is_open_to_readers_alone() -> None:
    server = client("one", also=frozenset({"/metrics"}))
    for path in ("/health", "/metrics", "/traits"):
        assert server.get(path).status_code == server.head(path).status_code == 200
        assert server.post(path).status_code == 401
    assert client("one").get("/metrics").status_code == 401


def test_a_prefix_before_every_path_opens_nothing() -> None:
    app = KeyCheck(everything, keys=ApiKeys(["one"]), message="a key is wanted", open_paths=OPEN)
    for prefix in ("/", "/behind/"):
        assert TestClient(app, root_path=prefix).get("/health").status_code == 200
    server = TestClient(app, root_path="/behind")
    assert server.get("/behind/health").status_code == 200
    assert server.get("/behind/invocations").status_code == 401
    assert server.get("/behindhealth").status_code == 401


def test_a_socket_asks_for_a_key_too() -> None:
    for path in ("/v1/realtime", "/health", "/socket"):
        with pytest.raises(WebSocketDisconnect), client("one").websocket_connect(path) as socket:
            socket.receive_text()
    with client("one").websocket_connect("/socket", headers=BEARER) as socket:
        assert socket.receive_text() == "answered"
    with client().websocket_connect("/socket") as socket:
        assert socket.receive_text() == "answered"


def test_options_asks_for_no_key_and_goes_no_further() -> None:
    answer = client("one").options("/v1/chat/completions")
    assert (answer.status_code, answer.content) == (204, b"")
    assert client("one").options("/invocations", headers=BEARER).json()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_anthropics_paths_take_the_key_as_its_clients_tell_it(path: str) -> None:
    server = client("one")
    told = server.post(path, headers={"x-api-key": "one"}).json()
    assert told["authorization"] == "Bearer one"
    assert "x-api-key" not in told
    for wrong in ({}, {"x-api-key": "two"}, {"x-api-key": ""}, {"authorization": "one"}):
        refused = server.post(path, headers=wrong)
        error = {"type": "authentication_error", "message": "a key is wanted"}
        assert refused.json() == {"type": "error", "error": error}
        assert refused.status_code == 401
    assert server.post("/v1/chat/completions", headers={"x-api-key": "one"}).status_code == 401


def test_a_header_given_twice_is_none() -> None:
    twice = [("authorization", "Bearer one"), ("authorization", "Bearer two")]
    assert client("one").get("/v1/models", headers=twice).status_code == 401
    keys = [("x-api-key", "one"), ("x-api-key", "two")]
    assert client("one").post("/v1/messages", headers=keys).status_code == 401


def test_without_keys_requests_go_on_as_they_came() -> None:
    told = client().post("/v1/messages", headers={"x-api-key": "anything"}).json()
    assert told["x-api-key"] == "anything"
    assert "authorization" not in told
