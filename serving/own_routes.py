"""The routes of ours that stand beside OpenAI's: the same in vLLM, the gateway and the embedded server.

Each but the page's files is behind the server's API keys. The gateway and the embedded server ask for them before
anything else; vLLM asks under `/v1` alone, so they ask again by `Routing.admits`.
"""

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from .admin import HEADER, admin_operations
from .jobs import job_operations
from .mcp import mcp_routes
from .openapi import description_route
from .page import page_routes
from .replies import error_reply
from .routing import Routing
from .skills.routes import skill_operations


def own_routes(routing: Routing) -> list[BaseRoute]:
    """All routes that a server adds to its own."""
    operations = [
        *skill_operations(routing),
        *admin_operations(routing),
        *job_operations(routing),
    ]
    behind_keys = [
        *(operation.route() for operation in operations),
        description_route(operations, admin_header=HEADER),
        *mcp_routes(routing),
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
