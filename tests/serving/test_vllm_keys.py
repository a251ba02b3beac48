"""Every route that the installed vLLM has, in any of its modes, asked without a key.

Apart from `test_keys.py`, since building vLLM's app changes logging for all tests that come later.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Mount, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from traitroute.adapters import ServerError
from traitroute.serving.api_routes import open_paths
from traitroute.serving.http.addresses import EXPOSED
from traitroute.serving.http.keys import ApiKeys

pytest.importorskip("vllm", reason="the plugin runs inside vLLM: pip install 'traitroute[serve]'")
pytest.importorskip("vllm.entrypoints.launchers.app", reason="vLLM builds its app elsewhere")

PAGE = "https://app.example"
MODES = {
    "VLLM_PLUGINS": "traitroute",
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_ENABLE_COHERE_API": "1",
}
TASKS: Any = ("generate", "embed", "classify", "score", "token_embed", "transcription", "realtime")


def built(*flags: str) -> Any:
    """vLLM's own app with our plugin in it, without an engine."""
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    args: Any = parser.parse_args(["--model", "tiny", "--enable-offline-docs", *flags])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in MODES.items():
            patch.setenv(name, value)
        return build_app(args, TASKS, None), args


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    from traitroute.serving.vllm.plugin import guard

    app, args = built("--api-key", "secret", "--allowed-origins", f'["{PAGE}"]')
    guard(app, ApiKeys.of_server(args))
    yield app


def paths(app: Any) -> Iterator[tuple[str, str]]:
    """A method and a path for each of the app's routes."""
    for route in app.routes:
        path = route.path.replace("{name:path}", "{name}")
        path = path.replace("{", "").replace("}", "")
        if isinstance(route, Mount):
            yield from (("GET", path + "/x"), ("POST", path + "/x"), ("POST", path))
        elif not isinstance(route, WebSocketRoute):
            yield from ((method, path) for method in route.methods)


def test_without_a_key_only_what_is_listed_is_answered(app: Any) -> None:
    from traitroute.serving.vllm.plugin import OPEN

    client = TestClient(app, raise_server_exceptions=False)
    found = set(paths(app))
    assert {("POST", "/invocations"), ("POST", "/adapters"), ("POST", "/collective_rpc")} < found
    opened = OPEN | open_paths()
    for method, path in found:
        answer = client.request(method, path, follow_redirects=False)
        if path not in opened or method not in ("GET", "HEAD"):
            assert answer.status_code == 401, (method, path)
        else:
            assert answer.status_code != 401, (method, path)


def test_a_socket_of_vllms_asks_for_a_key(app: Any) -> None:
    with pytest.raises(WebSocketDisconnect), TestClient(app).websocket_connect("/v1/realtime"):
        pass


def test_what_anthropics_clients_tell_passes_vllms_own_check(app: Any) -> None:
    client = TestClient(app, raise_server_exceptions=False)
    asked = {"model": "tiny", "max_tokens": 1, "messages": []}
    told = client.post("/v1/messages", json=asked, headers={"x-api-key": "secret"})
    assert told.status_code != 401
    refused = client.post("/v1/messages", json=asked, headers={"x-api-key": "wrong"})
    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "authentication_error"


def test_vllms_cors_asks_for_no_key_and_exposes_our_headers(app: Any) -> None:
    client = TestClient(app, raise_server_exceptions=False)
    asked = {"origin": PAGE, "access-control-request-method": "POST"}
    assert client.options("/v1/chat/completions", headers=asked).status_code == 200
    for path in ("/version", "/v1/models"):
        answer = client.get(path, headers={"origin": PAGE})
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-expose-headers"] == ", ".join(EXPOSED)
    other = asked | {"origin": "https://other.example"}
    assert client.options("/v1/chat/completions", headers=other).status_code == 400


def test_credentials_are_not_for_any_page() -> None:
    from traitroute.serving.vllm.plugin import guard

    app, args = built("--allowed-origins", '["*"]', "--allow-credentials")
    with pytest.raises(ServerError, match="name the origins"):
        guard(app, ApiKeys.of_server(args))
