"""Answers in OpenAI's form: whole, or in chunks of a stream, and ended when the client leaves."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ..http.errors import error_body
from .generation import Chunk, Finish, Generation, GenerationError

Kind = Literal["chat", "completion"]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class AnswerForm:
    """The form of one answer of `model` to `prompt_tokens`; all its chunks share id and time."""

    kind: Kind
    model: str
    prompt_tokens: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self, first: Chunk, rest: AsyncIterator[Chunk]) -> Response:
        """The answer at once, when all of it is there."""
        texts, last = [first.text], first
        async for last in rest:
            texts.append(last.text)
        text = "".join(texts)
        content = {"message": {"role": "assistant", "content": text}} if self.kind == "chat" else {"text": text}
        choices = [self._choice(content, last.finish or "stop")]
        return JSONResponse({**self._frame("", choices), "usage": self._usage(last.tokens)})

    def opening(self) -> bytes:
        """The event before any text: chat names the role, completions need none."""
        return self._event({"delta": {"role": "assistant", "content": ""}}, None) if self.kind == "chat" else b""

    def event(self, text: str, finish: Finish | None) -> bytes:
        """An event with some text, and at the end why it ended."""
        if self.kind == "chat":
            return self._event({"delta": {"content": text} if text else {}}, finish)
        return self._event({"text": text}, finish)

    def usage_event(self, tokens: int) -> bytes:
        """The event that holds nothing but the usage."""
        return _event({**self._frame(".chunk", []), "usage": self._usage(tokens)})

    def _event(self, content: dict[str, Any], finish: Finish | None) -> bytes:
        return _event(self._frame(".chunk", [self._choice(content, finish)]))

    def _choice(self, content: dict[str, Any], finish: Finish | None) -> dict[str, Any]:
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish}

    def _usage(self, tokens: int) -> dict[str, int]:
        """Tokens read and generated; the end-of-turn token is not counted."""
        read = self.prompt_tokens
        return {"prompt_tokens": read, "completion_tokens": tokens, "total_tokens": read + tokens}

    def _frame(self, suffix: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chat = self.kind == "chat"
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.id}",
            "object": f"chat.completion{suffix}" if chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


class EventStream(Response):
    """Server-sent events; a client that leaves ends its generation. `counted` adds the usage at the end."""

    media_type = "text/event-stream"

    def __init__(
        self, form: AnswerForm, generation: Generation, first: Chunk, rest: AsyncIterator[Chunk], *, counted: bool
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
        chunk = self._first
        yield self._form.event(chunk.text, chunk.finish)
        try:
            while not chunk.last:
                chunk = await anext(self._rest)
                yield self._form.event(chunk.text, chunk.finish)
        except GenerationError as exc:
            yield _event(error_body(500, str(exc)))
        if self._counted:
            yield self._form.usage_event(chunk.tokens)
        yield DONE


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


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
