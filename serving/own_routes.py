"""The routes of ours that stand beside OpenAI's: the same in vLLM, the gateway and the embedded server.

Each but the page's files is behind the server's API keys. The gateway and the embedded server ask for them before
anything else; vLLM asks under `/v1` alone, so they ask again by `Routing.admits`.
"""

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from .admin import admin_routes
from .jobs import job_routes
from .mcp import mcp_routes
from .page import page_routes
from .replies import error_reply
from .routing import Routing
from .skills.routes import skill_routes


def own_routes(routing: Routing) -> list[BaseRoute]:
    """All routes that a server adds to its own."""
    behind_keys = [
        *skill_routes(routing),
        *mcp_routes(routing),
        *admin_routes(routing),
        *job_routes(routing),
    ]
    for route in behind_keys:
        route.app = _Admitted(route.app, routing)
    return [*behind_keys, *page_routes()]


class _Admitted:
    """Pure ASGI: only requests that `routing` admits, as the server's keys say at the time of the request."""

    def __init__(self, app: ASGIApp, routing: Routing) -> None:
        self._app = app
        self._routing = routing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = error_reply(401, "this wants the header 'Authorization: Bearer KEY'")
        await (self._app if self._routing.admits(scope) else refusal)(scope, receive, send)
