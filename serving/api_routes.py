"""Our routes beside OpenAI's: the same in vLLM, the gateway and the embedded server.

All but `open_paths` are behind the server's API keys, which `KeyCheck` asks for before anything is read.
"""

from starlette.routing import BaseRoute

from .admin import HEADER, admin_operations
from .http.key_limits import KeyLimits
from .http.keys import HEALTH
from .http.openapi import description_route
from .jobs import job_operations
from .lift import lift_operations
from .mcp import mcp_routes
from .middleware.middleware import ENDPOINTS, UNROUTED
from .page import page_paths, page_routes
from .skills.routes import skill_operations
from .state import ServerState

_ASKED_OF_MODELS = frozenset(ENDPOINTS) | UNROUTED
_SHOWN_AS_SEEN = (
    *("/v1/models", "/v1/skills", "/v1/traits", "/v1/matrix", "/v1/feedback", "/v1/decisions", "/v1/jobs"),
    *("/v1/openapi.json", "/mcp"),
    # The administrator's key is asked for there.
    "/v1/adapters",
)
"""Paths of ours, and all below them, whose answers are made for the tenant that asks."""


def open_paths() -> frozenset[str]:
    """The paths that need no API key: health, and the page's files, which hold no data."""
    return page_paths() | {HEALTH}


def is_for_tenants(path: str) -> bool:
    """Whether what is answered at a path tells a tenant of no adapter that it may not use.

    A route that is added anywhere is closed to tenants until it is listed here.
    """
    path = path.removesuffix("/")
    return path in _ASKED_OF_MODELS or any(path == own or path.startswith(f"{own}/") for own in _SHOWN_AS_SEEN)


def api_routes(state: ServerState) -> list[BaseRoute]:
    """All routes that a server adds to its own.

    Raises:
        InputError: the environment's limits are no numbers.
    """
    operations = [*skill_operations(state), *admin_operations(state), *job_operations(state), *lift_operations(state)]
    limits = KeyLimits.from_environment()
    limited = [
        *(operation.route() for operation in operations),
        description_route(operations, admin_header=HEADER),
        *mcp_routes(state),
    ]
    for route in limited:
        route.app = limits.around(route.app)
    return [*limited, *page_routes()]
