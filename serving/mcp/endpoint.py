"""Where MCP is spoken: over streamable HTTP at `/mcp`, and over standard input and output.

Over HTTP there are no sessions, so any process of a server may answer any request. Importing this imports no `mcp`.
"""

import asyncio
from collections.abc import Callable, Collection
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ...adapters import Registry
from ..http.addresses import may_speak
from ..http.body import off_loop, parse_object, read_body, replay
from ..http.errors import RefusedError, error_response
from ..http.tenants import Tenant, tenant_of
from ..skills.skills import ServedSkills
from ..state import ServerState
from ..watcher import RegistryWatcher

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

PATH = "/mcp"
SERVERS = 100
"""How many tenants' servers are kept; one takes some milliseconds to make."""


def require_mcp() -> None:
    """Check that the MCP SDK is installed.

    Raises:
        ImportError: it is not; the message holds the install command.
    """
    if find_spec("mcp") is None or find_spec("mcp_types") is None:
        raise ImportError("MCP needs the extra, with mcp 2.3: pip install 'traitroute[skills]'")


def serve_stdio(open_registry: Callable[[], Registry]) -> None:
    """Serve until standard input ends, following the registry; only the protocol is written to standard output.

    Raises:
        ImportError: the SDK is missing.
    """
    require_mcp()
    asyncio.run(_serve(open_registry))


async def _serve(open_registry: Callable[[], Registry]) -> None:
    from mcp.server.stdio import stdio_server

    from .server import skills_server

    state = ServerState()
    watcher = RegistryWatcher(state, open_registry, lambda *_: None)
    server = skills_server(ServedSkills(state))
    await watcher.start()
    try:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        await watcher.stop()


def mcp_routes(state: ServerState) -> list[Route]:
    """The route at `/mcp`, answered from the snapshot in `state`.

    It takes POST only: there are no streams from the server to GET, and no sessions to DELETE.
    """
    return [Route(PATH, McpEndpoint(state), methods=["POST"])]


class McpEndpoint:
    """Pure ASGI: each request is a session of its own; the SDK is imported with the first."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        # One for each tenant's view of the skills, and so for the operator's.
        self._servers: LRUCache[Tenant, Server[Any]] = LRUCache(SERVERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tenant = tenant_of(scope)
        try:
            if (server := self._servers.get(tenant)) is None:
                server = self._servers[tenant] = await asyncio.to_thread(self._open, tenant)
            body = await read_body(receive, Headers(scope=scope), self._state.max_body_bytes)
            # The SDK would parse bodies of any size and depth, and on the event loop.
            await off_loop(lambda: parse_object(body), body)
        except ImportError as exc:
            await error_response(501, str(exc))(scope, receive, send)
        except RefusedError as refused:
            await refused.response()(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await _handle(server, self._state.origins, scope, replay(body, receive), send)

    def _open(self, tenant: Tenant) -> "Server[Any]":
        require_mcp()
        from .server import skills_server

        return skills_server(ServedSkills(self._state, tenant))


async def _handle(server: "Server[Any]", origins: Collection[str], scope: Scope, receive: Receive, send: Send) -> None:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings

    # A server behind a proxy does not know its own names, so any Host is accepted. Browsers send an Origin with every
    # POST, and checking it suffices against DNS rebinding.
    headers = Headers(scope=scope)
    origin = headers.getlist("origin")
    allowed = len(origin) == 1 and may_speak(origin[0], origins)
    security = TransportSecuritySettings(
        allowed_hosts=[headers.get("host", "")], allowed_origins=origin if allowed else []
    )
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True, security_settings=security)
    # The manager's tasks must start and end in one task. We cannot start them in the lifespan of every server (not in
    # vLLM's); without sessions they can start and end with the request.
    async with manager.run():
        await manager.handle_request(scope, receive, send)
