"""A request's body: read as far as it names a model, else passed through as it comes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from .headers import Headers

_OPAQUE = (b"multipart/", b"audio/", b"image/", b"video/", b"application/octet-stream")


class Body:
    """The body of one request.

    `read` becomes set when the client has nothing more to send; from then on `receive` tells only of
    its going away. `taken` says that an upstream was given a part of what cannot be given twice.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.read = asyncio.Event()
        self.taken = False
        self._receive = receive
        self._head = bytearray()
        headers = dict(scope["headers"])
        self._length = headers.get(b"content-length")
        self._present = self._length not in (None, b"0") or b"transfer-encoding" in headers
        kind = headers.get(b"content-type", b"").strip().lower()
        self._may_name_model = scope["method"] == "POST" and not kind.startswith(_OPAQUE)

    async def request(self, limit: int) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none, or larger than `limit` bytes.

        Raises:
            ClientDisconnect: the client has gone.
        """
        if not self._present:
            self.read.set()
        while self._may_name_model and not self.read.is_set() and len(self._head) <= limit:
            self._head += await self._next()
        if not self.read.is_set():
            return {}
        try:
            request = json.loads(self._head or b"null")
        except (ValueError, RecursionError):
            return {}
        return request if isinstance(request, dict) else {}

    def content(
        self, request: Mapping[str, Any], fields: Mapping[str, Any] | None
    ) -> bytes | AsyncIterator[bytes] | None:
        """What to send: the same bytes, unless `fields` change the request."""
        if fields and any(request.get(key) != value for key, value in fields.items()):
            return json.dumps({**request, **fields}).encode()
        if not self.read.is_set():
            return self._stream()
        return bytes(self._head) if self._present else None

    def headers(self, content: bytes | AsyncIterator[bytes] | None) -> Headers:
        """The length of a body that is streamed, where the client told it; httpx tells the others."""
        streamed = content is not None and not isinstance(content, bytes)
        return [(b"content-length", self._length)] if streamed and self._length else []

    async def _stream(self) -> AsyncIterator[bytes]:
        self.taken = True
        if self._head:
            yield bytes(self._head)
            self._head.clear()
        while not self.read.is_set():
            yield await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if not message.get("more_body", False):
            self.read.set()
        return message.get("body", b"")
