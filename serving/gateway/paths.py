"""What path a request has: decided once, before anything is compared with it.

The server has decoded the path; from here on it holds nothing that would mean something else to whoever
reads it next. A path that does is no path of ours, whether it was written raw or encoded, once or twice.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from ..http.errors import error_response
from ..page import page_paths

MODELS = "/v1/models/"
"""Below it slashes may be encoded, as OpenAI's clients do with a model's name: nothing of it is handed on."""
# No backslash, `;`, control character or `%` of a second encoding; nothing that is not ASCII.
_PLAIN = re.compile(r"/[A-Za-z0-9._~@:+=,/-]*")
_WITH_SLASH = frozenset(path for path in page_paths() if path.endswith("/"))


def plain_path(scope: Scope) -> str | None:
    """The request's path, without a slash at its end; None where it could be read in two ways."""
    path: str = scope["path"]
    if not _PLAIN.fullmatch(path) or "//" in path or {".", ".."} & set(path.split("/")):
        return None
    if b"%2f" in scope.get("raw_path", b"").lower() and not path.startswith(MODELS):
        return None
    return path if path in _WITH_SLASH else path.rstrip("/") or "/"


class PlainPaths:
    """Pure ASGI middleware, before all others: they see the plain path, and no request without one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif (path := plain_path(scope)) is not None:
            await self.app({**scope, "path": path, "raw_path": path.encode()}, receive, send)
        elif scope["type"] == "http":
            message = "no such path here: write it without dots, double or encoded slashes"
            await error_response(404, message)(scope, receive, send)
        else:
            await send({"type": "websocket.close"})
