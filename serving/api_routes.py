"""Our routes beside OpenAI's: the same in vLLM, the gateway and the embedded server.

All but `open_paths` are behind the server's API keys, which `KeyCheck` asks for before anything is read.
"""

from starlette.routing import BaseRoute

from .admin import HEADER, admin_operations
from .http.keys import HEALTH
from .http.openapi import description_route
from .jobs import job_operations
from .mcp import mcp_routes
from .page import page_paths, page_routes
from .skills.routes import skill_operations
from .state import ServerState


def open_paths() -> frozenset[str]:
    """The paths that need no API key: health, and the page's files, which hold no data."""
    return page_paths() | {HEALTH}


def api_routes(state: ServerState) -> list[BaseRoute]:
    """All routes that a server adds to its own."""
    operations = [*skill_operations(state), *admin_operations(state), *job_operations(state)]
    return [
        *(operation.route() for operation in operations),
        description_route(operations, admin_header=HEADER),
        *mcp_routes(state),
        *page_routes(),
    ]
