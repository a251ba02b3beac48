"""One HTTP request that Envoy shows us, as an ASGI request, and what is to become of it, as Envoy's protocol says it.

Envoy's external processing (ext_proc v3) is a conversation by gRPC: it sends headers and body of a request, is told how
to change them, sends the request on, and does the same with the response. Here the app is an ASGI app as in the other
servers. What it answers itself becomes an immediate response; what it hands on (`forward`) goes back to Envoy, and its
answer comes back through the app, which so adds its headers to it and looks at it.

Of the modes in which Envoy shows a request's body, two can be routed by: `FULL_DUPLEX_STREAMED`, in which the headers
are answered after the body was read, and `BUFFERED`, in which they are answered before. In any other mode what comes is
passed on as it is.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as Mode
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
    TrailersResponse,
)
from starlette.types import ASGIApp, Message, Scope

from .messages import RawHeaders, change, echo, headers_passed, immediate, passed, read_headers

EXCHANGE = "traitroute.exchange"
"""The scope's entry with the `Exchange`."""
CHUNK = 60_000
"""Bytes of a body in one message: Envoy's own limit is 64 KiB, everything else of the message included."""
WAITING = 8
"""So many messages are read ahead; what comes after waits in Envoy, which then reads no more from who sends."""

_ROUTED = frozenset({Mode.FULL_DUPLEX_STREAMED, Mode.BUFFERED})
_logger = logging.getLogger(__name__)


class Exchange:
    """The conversation about one request; `run` is called once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._request_mode = self._response_mode = Mode.NONE
        self._given: asyncio.Queue[Message] = asyncio.Queue(WAITING)
        self._answer: asyncio.Queue[ProcessingRequest | None] = asyncio.Queue(WAITING)
        self._out: asyncio.Queue[ProcessingResponse | None] = asyncio.Queue(WAITING)
        self._headers: RawHeaders = ()
        self._answered: RawHeaders = ()
        self._trailers = self._answer_trailers = False
        self._is_forwarded = self._is_bodiless = False
        self._immediate: Message = {}
        self._body = bytearray()

    async def run(self, asked: AsyncIterator[ProcessingRequest]) -> AsyncIterator[ProcessingResponse]:
        """What to tell Envoy of each message in `asked`."""
        first = await anext(asked, None)
        if first is None:
            return
        if (head := first.request_headers) is None or not self._takes(first, head):
            yield passed(first)
            async for message in asked:
                yield passed(message, self._mode_of(message))
            return
        scope = self._scope(head)
        if head.end_of_stream:
            self._given.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        elif self._request_mode is Mode.BUFFERED:
            yield headers_passed(request=True)
        reading = asyncio.create_task(self._read(asked))
        serving = asyncio.create_task(self._serve(scope))
        try:
            while (told := await self._out.get()) is not None:
                yield told
            await serving
        finally:
            reading.cancel()
            serving.cancel()
            await asyncio.gather(reading, serving, return_exceptions=True)

    async def forward(
        self, headers: RawHeaders, parts: AsyncIterator[tuple[bytes, bool]], *, content: bytes | None = None
    ) -> None:
        """Hand the request on with these `headers` (the original ones changed) and this `content`, or else, as it
        comes, the body that is in `parts`, of which each says whether more follows.
        """
        self._is_forwarded = True
        length = None if content is None else len(content)
        changes = change(self._headers, headers, length=length)
        if self._request_mode is Mode.BUFFERED and not self._is_bodiless:
            async for _ in parts:
                pass
            body = None if content is None else BodyMutation(body=content)
            response = CommonResponse(header_mutation=changes, body_mutation=body, clear_route_cache=True)
            await self._out.put(ProcessingResponse(request_body=BodyResponse(response=response)))
            return
        response = CommonResponse(header_mutation=changes, clear_route_cache=True)
        await self._out.put(ProcessingResponse(request_headers=HeadersResponse(response=response)))
        if self._is_bodiless:
            return
        async for part, more in _whole(parts, content):
            await self._stream(part, more=more or self._trailers, request=True)
        if self._trailers:
            await self._out.put(ProcessingResponse(request_trailers=TrailersResponse()))

    async def answer(self) -> tuple[int, RawHeaders] | None:
        """Status and headers of the answer; None where Envoy does not show it."""
        while (message := await self._answer.get()) is not None:
            if message.response_headers is not None:
                headers = read_headers(message.response_headers)
                self._answered = [(n, v) for n, v in headers if not n.startswith(b":")]
                if message.response_headers.end_of_stream:
                    self._response_mode = Mode.NONE
                status = dict(headers).get(b":status", b"")
                return int(status) if status.isdigit() else 502, self._answered
            await self._out.put(passed(message, self._mode_of(message)))
        return None

    async def answer_parts(self) -> AsyncIterator[tuple[bytes, bool]]:
        """The parts of the answer's body, and whether more follow; none where Envoy does not show it."""
        while self._response_mode is not Mode.NONE and (message := await self._answer.get()) is not None:
            if message.response_trailers is not None:
                self._answer_trailers = True
                yield b"", False
                return
            if (body := message.response_body) is not None:
                yield body.body, not body.end_of_stream
                if body.end_of_stream:
                    return

    def _takes(self, first: ProcessingRequest, head: HttpHeaders) -> bool:
        """Take over the modes that Envoy was set to, and say whether a request can be routed by them."""
        if (told := first.protocol_config) is None:
            # Only versions older than the mode FULL_DUPLEX_STREAMED do not say.
            self._request_mode = Mode.BUFFERED
        else:
            self._request_mode, self._response_mode = Mode(told.request_body_mode), Mode(told.response_body_mode)
        self._is_bodiless = head.end_of_stream
        if self._request_mode in _ROUTED or head.end_of_stream:
            return True
        _complain(self._request_mode)
        return False

    def _mode_of(self, message: ProcessingRequest) -> Mode:
        return self._request_mode if message.request_body is not None else self._response_mode

    def _scope(self, head: HttpHeaders) -> Scope:
        named = read_headers(head)
        pseudo = {name: value for name, value in named if name.startswith(b":")}
        self._headers = [(n, v) for n, v in named if not n.startswith(b":")]
        raw_path, _, query = pseudo.get(b":path", b"/").partition(b"?")
        is_socket = any(n == b"upgrade" and v.strip().lower() == b"websocket" for n, v in self._headers)
        authority = pseudo.get(b":authority", b"")
        return {
            "type": "websocket" if is_socket else "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": pseudo.get(b":method", b"GET").decode("latin-1"),
            "scheme": pseudo.get(b":scheme", b"http").decode("latin-1"),
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", authority), *((n, v) for n, v in self._headers if n != b"host")],
            "client": None,
            "server": None,
            EXCHANGE: self,
        }

    async def _read(self, asked: AsyncIterator[ProcessingRequest]) -> None:
        """Sort what Envoy sends into what is of the request and what is of its answer."""
        async for message in asked:
            if (body := message.request_body) is not None:
                await self._given.put({"type": "http.request", "body": body.body, "more_body": not body.end_of_stream})
            elif message.request_trailers is not None:
                self._trailers = True
                await self._given.put({"type": "http.request", "body": b"", "more_body": False})
            else:
                await self._answer.put(message)
        # Envoy has nothing more to say: the client went away, or the exchange is over.
        await self._answer.put(None)
        await self._given.put({"type": "http.disconnect"})

    async def _serve(self, scope: Scope) -> None:
        try:
            await self._app(scope, self._given.get, self._send)
        except Exception:
            _logger.exception("a request that Envoy showed was not answered")
        await self._out.put(None)

    async def _send(self, message: Message) -> None:
        """What the app answers."""
        if message["type"] in ("websocket.close", "websocket.http.response.start"):
            await self._out.put(immediate(403, (), b""))
        elif self._is_forwarded:
            await self._send_on(message)
        elif message["type"] == "http.response.start":
            self._immediate = message
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                headers = self._immediate.get("headers", ())
                await self._out.put(immediate(self._immediate["status"], headers, bytes(self._body)))

    async def _send_on(self, message: Message) -> None:
        """What the answer of the server behind Envoy has become on its way through the app."""
        if message["type"] == "http.response.start":
            changes = change(self._answered, message.get("headers", ()))
            response = CommonResponse(header_mutation=changes)
            await self._out.put(ProcessingResponse(response_headers=HeadersResponse(response=response)))
        elif self._response_mode is Mode.FULL_DUPLEX_STREAMED:
            more = message.get("more_body", False)
            await self._stream(message.get("body", b""), more=more or self._answer_trailers, request=False)
            if self._answer_trailers and not more:
                await self._out.put(ProcessingResponse(response_trailers=TrailersResponse()))
        elif self._answer_trailers:
            await self._out.put(ProcessingResponse(response_trailers=TrailersResponse()))
        elif self._response_mode is not Mode.NONE:
            await self._out.put(ProcessingResponse(response_body=BodyResponse()))

    async def _stream(self, part: bytes, *, more: bool, request: bool) -> None:
        for start in range(0, len(part) or 1, CHUNK):
            last = start + CHUNK >= len(part) and not more
            await self._out.put(echo(part[start : start + CHUNK], end=last, request=request))


async def _whole(parts: AsyncIterator[tuple[bytes, bool]], content: bytes | None) -> AsyncIterator[tuple[bytes, bool]]:
    """What to send as the body: `content`, once `parts` were read, or else these."""
    async for part in parts:
        if content is None:
            yield part
    if content is not None:
        yield content, False


_complained: set[Mode] = set()


def _complain(mode: Mode) -> None:
    if mode not in _complained:
        _complained.add(mode)
        _logger.warning(
            "Envoy's filter shows request bodies as %s, by which nothing can be routed: set "
            "processing_mode.request_body_mode to FULL_DUPLEX_STREAMED (or BUFFERED)",
            mode.name,
        )


Process = Callable[[AsyncIterator[ProcessingRequest], Any], AsyncIterator[ProcessingResponse]]


def process(app: ASGIApp) -> Process:
    """The gRPC method `Process` by which Envoy talks to `app`."""

    async def exchange(asked: AsyncIterator[ProcessingRequest], context: Any) -> AsyncIterator[ProcessingResponse]:
        async for told in Exchange(app).run(aiter(asked)):
            yield told

    return exchange
