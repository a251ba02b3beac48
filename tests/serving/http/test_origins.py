"""Which web pages may read answers and speak MCP, on the gateway and on the embedded server."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient
from traitroute.adapters import AdapterState, InputError, Registry
from traitroute.serving.http.addresses import EXPOSED, may_speak, read_origins

PAGE = "https://app.example:8443"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-api-key,x-traitroute-deny",
}
OpenServer = Callable[..., TestClient]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("https://app.example", "https://app.example"),
        ("https://App.example:443", "https://app.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("vscode-webview://abc", "vscode-webview://abc"),
    ],
)
def test_an_origin_is_read_as_browsers_write_it(given: str, read: str) -> None:
    assert read_origins([given], keyed=False) == (read,)


@pytest.mark.parametrize(
    "given",
    [
        "app.example",
        "https://app.example/",
        "https://app.example/path",
        "https://me@app.example",
        "https://app.example:",
        "https://app.example:x",
        "https://*.example",
        "null",
        "",
        " https://app.example",
        "https://app.example,https://b.example",
    ],
)
def test_what_is_no_origin_is_refused_with_what_is_wanted(given: str) -> None:
    with pytest.raises(InputError, match="wanted what browsers write"):
        read_origins([given], keyed=True)


def test_any_page_may_ask_only_a_server_with_a_key() -> None:
    assert read_origins(["*"], keyed=True) == ("*",)
    with pytest.raises(InputError, match="set a key, or name the origins"):
        read_origins(["*"], keyed=False)


@pytest.mark.parametrize(
    ("origin", "speaks"),
    [
        ("http://localhost", True),
        ("http://localhost:6274", True),
        ("https://localhost:6274", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:8000", True),
        (PAGE, True),
        ("https://app.example", False),
        ("http://app.example:8443", False),
        ("http://localhost.evil.example", False),
        ("http://localhost@evil.example", False),
        ("http://localhost:80.evil.example", False),
        ("http://localhost:evil", False),
        ("http://127.0.0.1.evil.example", False),
        ("ftp://localhost", False),
        ("null", False),
        ("", False),
        ("*", False),
    ],
)
def test_mcp_is_spoken_with_local_pages_and_those_named(origin: str, speaks: bool) -> None:
    assert may_speak(origin, ("*", PAGE)) is speaks


def test_a_browser_may_ask_before_it_tells_a_key(open_server: OpenServer, registry: Registry) -> None:
    server = open_server(registry, "secret", PAGE)
    answer = server.options("/v1/chat/completions", headers=PREFLIGHT | {"origin": PAGE})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "x-traitroute-deny" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    other = {"origin": "https://other.example"}
    refused = server.options("/v1/chat/completions", headers=PREFLIGHT | other)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


def test_pages_may_read_refusals_and_the_headers_of_routing(open_server: OpenServer, registry: Registry) -> None:
    server = open_server(registry, "secret", PAGE)
    for headers, status in (({}, 401), ({"authorization": "Bearer secret"}, 200)):
        answer = server.get("/v1/models", headers={"origin": PAGE, **headers})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-expose-headers"] == ", ".join(EXPOSED)


def test_without_origins_no_page_is_answered(open_server: OpenServer, registry: Registry) -> None:
    server = open_server(registry, "secret")
    answer = server.options("/v1/chat/completions", headers=PREFLIGHT | {"origin": PAGE})
    assert not [h for h in answer.headers if h.startswith("access-control")]
    assert answer.status_code == 204


def test_any_origin_comes_without_credentials(open_server: OpenServer, registry: Registry) -> None:
    answer = open_server(registry, "secret", "*").get("/health", headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


def test_mcp_is_answered_to_the_pages_that_its_documentation_names(open_server: OpenServer, registry: Registry) -> None:
    pytest.importorskip("mcp")
    server = open_server(registry, "", PAGE)
    asked = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"accept": "application/json, text/event-stream", "host": "gpu1:8000"}
    for origin, status in (
        ("http://localhost", 200),
        ("http://localhost:6274", 200),
        ("https://127.0.0.1:8000", 200),
        (PAGE, 200),
        ("http://gpu1:8000", 403),
        ("http://localhost.evil.example", 403),
    ):
        answer = server.post("/mcp", json=asked, headers=accept | {"origin": origin})
        assert answer.status_code == status, origin
    twice = [*accept.items(), ("origin", "http://localhost"), ("origin", "http://evil.example")]
    assert server.post("/mcp", json=asked, headers=twice).status_code == 403
    assert server.post("/mcp", json=asked, headers=accept).status_code == 200


def test_a_model_is_told_of_by_its_name(open_server: OpenServer, registry: Registry) -> None:
    registry.add_adapter(registry.adapter("idle").model_copy(update={"name": "hidden"}))
    registry.set_state("hidden", AdapterState.DISABLED)
    server = open_server(registry, "")
    listed = server.get("/v1/models").json()["data"]
    assert {"auto", "chef"} < {card["id"] for card in listed}
    for card in listed:
        assert server.get(f"/v1/models/{card['id']}").json() == card
    for name in ("nobody", "hidden", "org%2Fmodel", "x" * 3000):
        answer = server.get(f"/v1/models/{name}")
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert error["message"].endswith("does not exist: see /v1/models")
        assert (error["type"], error["param"]) == ("invalid_request_error", "model")
