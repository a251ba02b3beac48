"""What is refused before anything is routed, loaded or generated: more requests than may wait."""

from starlette.types import ASGIApp, Receive, Scope, Send

from ..http.errors import error_response

RETRY_AFTER_S = 1


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
                429,
                f"the queue is full ({self._limit} requests): try again later",
                headers={"retry-after": str(RETRY_AFTER_S)},
            )
            await refusal(scope, receive, send)
            return
        self._present += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._present -= 1
