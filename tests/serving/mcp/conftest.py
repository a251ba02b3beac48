"""The MCP server over three ways: in this process, over HTTP from a real embedded server, over standard streams."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("mcp", reason="needs MCP: pip install 'traitroute[skills]'")

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from traitroute.adapters import Registry
from traitroute.serving.following import RegistryFollower
from traitroute.serving.mcp.server import skills_server
from traitroute.serving.routing import Routing
from traitroute.serving.skills.served import ServedSkills

KEY = "a key for this test"
Conversation = Callable[[Client], Coroutine[Any, Any, Any]]
Talk = Callable[[Conversation], Any]


def talking_to(server: Any) -> Talk:
    """Hold a conversation with what the SDK's client takes for a server."""

    async def hold(conversation: Conversation) -> Any:
        async with Client(server) as client:
            return await conversation(client)

    return lambda conversation: asyncio.run(hold(conversation))


@pytest.fixture
def talk(filled: Path) -> Talk:
    """Talk to a server in this process."""
    routing = Routing()
    following = RegistryFollower(
        routing, lambda: Registry.open(filled, read_only=True), lambda *_: None
    )
    asyncio.run(following.refresh())
    return talking_to(skills_server(ServedSkills(routing)))


@pytest.fixture(scope="session")
def url(filled: Path, tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Iterator[str]:
    """An embedded server with a tiny model and a key."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs it: pip install 'traitroute[embedded]'")
    pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[embedded]'")
    from traitroute.serving.embedded import EmbeddedOptions, open_app

    base = tiny.save(tmp_path_factory.mktemp("mcp") / "tiny")
    options = EmbeddedOptions(precision="float32", api_key=KEY)
    app = open_app(base, filled, name="tiny", base_digest=None, options=options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def talk_http(url: str) -> Callable[..., Any]:
    """Talk to the embedded server, with `headers` beside the key."""

    async def hold(conversation: Conversation, headers: dict[str, str], mode: str) -> Any:
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            return await conversation(client)

    def talk(
        conversation: Conversation, *, key: str = KEY, mode: str = "auto", **headers: str
    ) -> Any:
        told = {"authorization": f"Bearer {key}"} | headers
        return asyncio.run(hold(conversation, told, mode))

    return talk
