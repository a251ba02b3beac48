"""MCP over streamable HTTP at `/mcp`, without sessions, so that any process of a server may answer any request."""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..http.addresses import may_speak
from ..http.body import off_loop, parse_object, read_body, replay
from ..http.errors import RefusedError, error_response
from ..skills.served import ServedSkills
from ..state import ServerState
from .package import require_mcp

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

PATH = "/mcp"


def mcp_routes(state: ServerState) -> list[Route]:
    """The route, answered from the snapshot that `state` has.

    There are no streams of the server's own to GET, and no sessions to DELETE.
    """
    return [Route(PATH, McpEndpoint(state), methods=["POST"])]


class McpEndpoint:
    """Pure ASGI: each request is a conversation of its own; the SDK is imported at the first."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._server: Server[Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._server = self._server or await asyncio.to_thread(self._open)
            body = await read_body(receive, Headers(scope=scope), self._state.max_body_bytes)
            # The SDK reads bodies of any size and shape, and on the event loop.
            await off_loop(lambda: parse_object(body), body)
        except ImportError as exc:
            await error_response(501, str(exc))(scope, receive, send)
        except RefusedError as refused:
            await refused.response()(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            replayed = replay(body, receive)
            await _converse(self._server, self._state.origins, scope, replayed, send)

    def _open(self) -> "Server[Any]":
        require_mcp()
        from .server import skills_server

        return skills_server(ServedSkills(self._state))


async def _converse(
    server: "Server[Any]", origins: Collection[str], scope: Scope, receive: Receive, send: Send
) -> None:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings

    # A server behind a proxy does not know its own names, so any host will do. A browser tells with every POST where
    # its page came from, and that suffices against pages that gave this machine a name of theirs.
    headers = Headers(scope=scope)
    asking = headers.getlist("origin")
    welcome = len(asking) == 1 and may_speak(asking[0], origins)
    security = TransportSecuritySettings(
        allowed_hosts=[headers.get("host", "")], allowed_origins=asking if welcome else []
    )
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True, security_settings=security)
    # Its tasks must end where they began. A host's lifespan is not always ours to begin them in, vLLM's is not;
    # with no sessions to keep, they begin and end with the request.
    async with manager.run():
        await manager.handle_request(scope, receive, send)
