"""Direct a request anew that no upstream took: by then the base model may have to answer.

Between two checks an upstream can go away with the only copy of an adapter. Routing has chosen by then;
but as nothing was sent, it may choose again, and now knows that the adapter is out of reach.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..http.errors import error_response
from .proxy import UntakenError

RETRY_AFTER_S = 2


class Retry:
    """Pure ASGI middleware around routing; bodies beyond `limit` bytes get no second chance."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard = _Heard(receive, send, self.limit)
        try:
            await self.app(scope, heard.receive, heard.send)
            return
        except UntakenError as exc:
            why = str(exc)
        try:
            if heard.whole:
                await self.app(scope, heard.again(), send)
                return
        except UntakenError as exc:
            why = str(exc)
        reply = error_response(503, why, headers={"retry-after": str(RETRY_AFTER_S)})
        await reply(scope, receive, send)


class _Heard:
    """What a client has sent, kept until an answer begins."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self.whole = True
        self._receive, self._send = receive, send
        self._messages: list[Message] = []
        self._room = limit

    async def receive(self) -> Message:
        message = await self._receive()
        self._room -= len(message.get("body", b""))
        if self._room < 0:
            self.whole = False
            self._messages.clear()
        if self.whole:
            self._messages.append(message)
        return message

    async def send(self, message: Message) -> None:
        self.whole = False
        self._messages.clear()
        await self._send(message)

    def again(self) -> Receive:
        messages = iter(self._messages)

        async def receive() -> Message:
            return next(messages, None) or await self._receive()

        return receive
