"""An answer on its way to a client: as server-sent events or whole, and ended when the client leaves."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from .answers import DONE, AnswerForm, Usage, error_event
from .generation import Generation, GenerationError, Piece


class EventStream(Response):
    """Server-sent events; a client that leaves ends its generation."""

    media_type = "text/event-stream"

    def __init__(
        self,
        form: AnswerForm,
        generation: Generation,
        first: Piece,
        rest: AsyncIterator[Piece],
        *,
        counted: bool,
    ) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-store"})
        self._form, self._generation, self._counted = form, generation, counted
        self._first, self._rest = first, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the chunks as they come."""
        headers = [h for h in self.raw_headers if h[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            with until_disconnect(self._generation, receive):
                async for event in self._events():
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        finally:
            self._generation.abort()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[bytes]:
        if opening := self._form.opening():
            yield opening
        piece = self._first
        yield self._form.chunk(piece.text, piece.finish)
        try:
            while not piece.last:
                piece = await anext(self._rest)
                yield self._form.chunk(piece.text, piece.finish)
        except GenerationError as exc:
            yield error_event(str(exc))
        if self._counted:
            yield self._form.counted(Usage(len(self._generation.order.prompt), piece.tokens))
        yield DONE


async def whole(form: AnswerForm, first: Piece, rest: AsyncIterator[Piece], prompt_tokens: int) -> Response:
    """The answer in one piece, when all of it is there."""
    texts, last = [first.text], first
    async for last in rest:
        texts.append(last.text)
    usage = Usage(prompt_tokens, last.tokens)
    return JSONResponse(form.whole("".join(texts), last.finish or "stop", usage))


@contextmanager
def until_disconnect(generation: Generation, receive: Receive) -> Iterator[None]:
    """Abort the generation when the client leaves while this is open."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        generation.abort()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
