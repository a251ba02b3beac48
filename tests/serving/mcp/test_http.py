"""Streamable HTTP at `/mcp` of a real embedded server, spoken to by the SDK's own client."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from starlette.testclient import TestClient
from traitroute.adapters import Registry
from traitroute.serving.gateway import GatewayOptions, gateway_app

TalkHttp = Callable[..., Any]
KEY = "a key for this test"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
KEYED = {"authorization": f"Bearer {KEY}"}
CALL = PING | {"method": "tools/call", "params": {"name": "list_skills", "arguments": {}}}
ACCEPT = {"accept": "application/json, text/event-stream"}


async def choice(client: Client) -> Any:
    tools = [tool.name for tool in (await client.list_tools()).tools]
    told = await client.call_tool("select_skill", {"task": "rocket fuel thrust orbit mars moon"})
    return tools, told.structured_content


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_clients_of_both_eras_of_the_protocol_are_answered(talk_http: TalkHttp, mode: str) -> None:
    tools, told = talk_http(choice, mode=mode)
    assert "plan_skills" in tools
    assert told["choice"] == "pilot"
    assert told["ranking"][0]["loaded"] is False


def test_no_session_is_kept_so_any_process_may_answer(url: str) -> None:
    headers = ACCEPT | KEYED
    answers = [httpx.post(url, json=PING, headers=headers) for _ in range(2)]
    assert [a.json()["result"] for a in answers] == [{}, {}]
    assert all("mcp-session-id" not in a.headers for a in answers)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b" " * (8 * 2**20 + 1), 413),
        (b"[[]" + b",[]" * 200_000 + b"]", 413),
        (b"[" * 101 + b"]" * 101, 400),
        (b'{"jsonrpc": "2.0", "id": "\\ud83d", "method": "ping"}', 400),
    ],
)
def test_a_body_beyond_the_limits_is_refused(url: str, body: bytes, status: int) -> None:
    assert httpx.post(url, content=body, headers=ACCEPT | KEYED).status_code == status


@pytest.mark.parametrize("key", ["", "Bearer wrong"])
def test_without_the_key_nothing_is_answered(url: str, key: str) -> None:
    response = httpx.post(url, json=PING, headers=ACCEPT | {"authorization": key})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_a_page_from_elsewhere_is_turned_away_and_a_local_one_is_not(url: str) -> None:
    headers = ACCEPT | KEYED | {"host": "rebound.example"}
    elsewhere = headers | {"origin": "http://rebound.example"}
    assert httpx.post(url, json=PING, headers=elsewhere).status_code == 403
    local = headers | {"origin": "http://localhost:6274"}
    assert httpx.post(url, json=PING, headers=local).status_code == 200


def test_there_is_no_stream_to_get(url: str) -> None:
    headers = ACCEPT | KEYED
    assert httpx.get(url, headers=headers).status_code == 405


@pytest.fixture
def gateway(filled: Path) -> Iterator[TestClient]:
    """A gateway in this process, whose upstream is not there."""
    options = GatewayOptions(upstreams=("http://127.0.0.1:9",), key=KEY)
    app = gateway_app(options, lambda: Registry.open(filled, read_only=True))
    with TestClient(app, base_url="http://gateway.example", headers=ACCEPT) as client:
        yield client


def test_the_gateway_answers_by_itself(gateway: TestClient) -> None:
    assert gateway.post("/mcp", json=CALL).status_code == 401
    told = gateway.post("/mcp", json=CALL, headers=KEYED).json()["result"]
    assert [s["name"] for s in told["structuredContent"]["skills"]] == ["chef", "idle", "pilot"]


@pytest.mark.parametrize("wrong", [{}, {"k": 0}, {"constraints": {"allow": ["none"]}}])
def test_no_text_of_a_request_is_logged(
    gateway: TestClient, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    arguments = {"task": "xyzzy simmer the soup", **wrong}
    asked = PING | {
        "method": "tools/call",
        "params": {"name": "select_skill", "arguments": arguments},
    }
    told = gateway.post("/mcp", json=asked, headers=KEYED).json()["result"]
    assert told["isError"] == bool(wrong)
    assert "xyzzy" not in caplog.text


WITHOUT_MCP = """
import sys
sys.modules["mcp"] = sys.modules["mcp_types"] = None
import importlib.util, asyncio, httpx
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in ("mcp", "mcp_types") else found(name, *a)
from starlette.applications import Starlette
from traitroute.serving.mcp import mcp_routes
from traitroute.serving.state import ServerState
app = Starlette(routes=mcp_routes(ServerState()))
async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t") as c:
        answer = await c.post("/mcp", json={})
    print(answer.status_code, answer.json()["error"]["message"])
asyncio.run(main())
"""


@pytest.mark.slow
def test_without_the_package_the_route_says_how_to_install_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_MCP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("501 MCP needs the extra")
    assert "pip install 'traitroute[skills]'" in done.stdout
