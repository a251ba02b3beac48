"""The gateway's own key: without it nothing is routed, loaded or forwarded."""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from .replies import error_reply

HEALTH = "/health"


class KeyCheck:
    """Pure ASGI middleware that lets through what bears the key, and questions after health."""

    def __init__(self, app: ASGIApp, *, key: str | None) -> None:
        self.app = app
        self.key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        open_to_all = scope["type"] != "http" or scope["path"] == HEALTH
        if open_to_all or bears(scope, self.key):
            await self.app(scope, receive, send)
            return
        message = "this gateway wants the header 'Authorization: Bearer KEY' with its own key"
        await error_reply(401, message, kind="authentication_error")(scope, receive, send)


def bears(scope: Scope, key: str | None) -> bool:
    """Whether a request may pass a gateway with this key (None: anyone may)."""
    if key is None:
        return True
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    wanted = f"Bearer {key}".encode()
    return len(given) == 1 and hmac.compare_digest(given[0], wanted)
