"""MCP over standard input and output, for agents that start their servers themselves."""

import asyncio
from collections.abc import Callable

from ...adapters import Registry
from ..skills.served import ServedSkills
from ..state import ServerState
from ..watcher import RegistryWatcher
from .package import require_mcp


def serve_stdio(open_registry: Callable[[], Registry]) -> None:
    """Answer until standard input ends, following the registry; nothing but the protocol is written to standard output.

    Raises:
        ImportError: the SDK is missing.
    """
    require_mcp()
    asyncio.run(_serve(open_registry))


async def _serve(open_registry: Callable[[], Registry]) -> None:
    from mcp.server.stdio import stdio_server

    from .server import skills_server

    state = ServerState()
    following = RegistryWatcher(state, open_registry, lambda *_: None)
    server = skills_server(ServedSkills(state))
    await following.start()
    try:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        await following.stop()
