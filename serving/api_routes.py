"""The routes of ours that stand beside OpenAI's: the same in vLLM, the gateway and the embedded server.

Each but the page's files is behind the server's API keys, for which `KeyCheck` asks before anything else.
"""

from starlette.routing import BaseRoute

from .admin import HEADER, admin_operations
from .http.openapi import description_route
from .jobs import job_operations
from .mcp import mcp_routes
from .middleware import Routing
from .page import page_routes
from .skills.routes import skill_operations


def api_routes(routing: Routing) -> list[BaseRoute]:
    """All routes that a server adds to its own."""
    operations = [
        *skill_operations(routing),
        *admin_operations(routing),
        *job_operations(routing),
    ]
    return [
        *(operation.route() for operation in operations),
        description_route(operations, admin_header=HEADER),
        *mcp_routes(routing),
        *page_routes(),
    ]
