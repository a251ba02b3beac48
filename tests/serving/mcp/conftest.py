"""The MCP server over three ways: in this process, over HTTP from a real embedded server, over standard streams."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("mcp", reason="needs MCP: pip install 'traitroute[skills]'")

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from traitroute.adapters import Registry
from traitroute.serving.mcp.server import skills_server
from traitroute.serving.skills.skills import ServedSkills
from traitroute.serving.state import ServerState
from traitroute.serving.watcher import RegistryWatcher

from ...servers import serving

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
    state = ServerState()
    following = RegistryWatcher(state, lambda: Registry.open(filled, read_only=True), lambda *_: None)
    asyncio.run(following.refresh())
    return talking_to(skills_server(ServedSkills(state)))


@pytest.fixture(scope="session")
def url(filled: Path, tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Iterator[str]:
    """An embedded server with a tiny model and a key."""
    pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[embedded]'")
    from traitroute.serving.embedded import EmbeddedOptions, open_app

    base = tiny.save(tmp_path_factory.mktemp("mcp") / "tiny")
    options = EmbeddedOptions(precision="float32", api_key=KEY)
    app = open_app(base, filled, name="tiny", base_digest=None, options=options)
    with serving(app) as served:
        yield f"{served}/mcp"


@pytest.fixture
def talk_http(url: str) -> Callable[..., Any]:
    """Talk to the embedded server, with `headers` beside the key."""

    async def hold(conversation: Conversation, headers: dict[str, str], mode: str) -> Any:
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            return await conversation(client)

    def talk(conversation: Conversation, *, key: str = KEY, mode: str = "auto", **headers: str) -> Any:
        told = {"authorization": f"Bearer {key}"} | headers
        return asyncio.run(hold(conversation, told, mode))

    return talk
