"""What is refused before anything is routed, loaded or generated: requests without the key, and too many."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .answers import error_response

OPEN_PATHS = frozenset({"/health"})
RETRY_AFTER_S = 1


class KeyCheck:
    """Pure ASGI middleware: a request needs `Authorization: Bearer KEY`; health checks do not."""

    def __init__(self, app: ASGIApp, *, key: str) -> None:
        self.app = app
        self._wanted = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("authorization", "").encode("latin-1")
        if hmac.compare_digest(given, self._wanted):
            await self.app(scope, receive, send)
            return
        refusal = error_response("the API key is missing or wrong", 401)
        await refusal(scope, receive, send)


class QueueLimit:
    """Pure ASGI middleware: at most `limit` requests are answered or wait; more get a 429."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self._limit = limit
        self._present = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self._present >= self._limit:
            refusal = error_response(
                f"the queue is full ({self._limit} requests): try again later",
                429,
                headers={"retry-after": str(RETRY_AFTER_S)},
            )
            await refusal(scope, receive, send)
            return
        self._present += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._present -= 1
