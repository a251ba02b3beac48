"""Forward requests to upstreams: only what is open there, nothing buffered on the way back, nothing sent twice.

A chunk is read from the upstream only when the client's connection has taken the one before, so a slow
reader slows the upstream down and the gateway holds no queue. A client that goes away ends the request
at the upstream. Only a request that no connection was made for is tried elsewhere.

A body is written anew from the parsed request, so that no upstream's parser reads in the client's bytes what ours did
not (a key twice, an encoding, something behind the end). An adapter is named as `model` and nowhere else, because only
there the registry is asked about it.
"""

import asyncio
import logging
import reprlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from starlette import datastructures
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..admin import HEADER as ADMIN_KEY
from ..constraints import named_beside
from ..http.body import REQUEST, dump, off_loop, parse_object, read_body
from ..http.errors import RefusedError, error_response
from ..loading import LoadError
from .dialects import has_body, open_method
from .fleet import Target, choose, conversation_key
from .loader import FleetLoader
from .options import GatewayOptions
from .upstream import Headers, NotSentError, Upstream

MAX_BODY_BYTES = 8 * 2**20
RETRY_AFTER_S = 2
_EVERYWHERE = ("/v1/chat/completions", "/v1/completions")
_logger = logging.getLogger(__name__)

_HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
    *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
}
_OF_THIS_REQUEST = {
    # Of the client's connection to the gateway, and of its body, which is written anew.
    *(b"content-encoding", b"content-length", b"content-md5", b"expect", b"host", b"origin"),
    # What makes another path, method or model of a request.
    *(b"x-amzn-sagemaker-adapter-identifier", b"x-http-method", b"x-http-method-override", b"x-method-override"),
    *(b"x-original-url", b"x-rewrite-url", b"x-traitroute-model", ADMIN_KEY.encode()),
}
_CREDENTIALS = {
    *(b"api-key", b"authorization", b"cookie", b"ocp-apim-subscription-key", b"x-access-token"),
    *(b"x-amz-security-token", b"x-api-key", b"x-auth-token", b"x-goog-api-key"),
}
_CROSS_ORIGIN = b"access-control-"
"""Which web pages may read answers is for the gateway to say: an upstream's `*` would open them to every page, and some
upstreams refuse a page that they do not know."""
_OF_THE_UPSTREAM = {b"content-location", b"location", b"refresh"}
"""They hold its address."""


class NoUpstreamError(Exception):
    """Nothing of the request was sent, and no upstream is left to ask for this model."""


class Proxy:
    """The ASGI app behind the routing middleware."""

    def __init__(self, loader: FleetLoader, options: GatewayOptions, *, keyed: bool) -> None:
        self._loader = loader
        self._authorization = upstream_authorization(options, keyed=keyed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        path, method = scope["path"], open_method(scope["path"])
        try:
            if method is None:
                message = f"{path[:200]} is not open through the gateway: ask the upstream itself"
                raise RefusedError(message, status=404)
            if method != scope["method"]:
                await error_response(405, f"{path} wants {method}", headers={"allow": method})(scope, receive, send)
                return
            body = await Body.read(scope, receive, MAX_BODY_BYTES) if has_body(path) else Body()
            await _Call(scope, receive, send, self._loader, self._authorization, body).run()
        except RefusedError as refused:
            await refused.response()(scope, receive, send)
        except ClientDisconnect:
            return


@dataclass(frozen=True)
class Body:
    """The body of one request, as `raw` bytes and parsed; both empty where none is read."""

    raw: bytes = b""
    request: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    async def read(cls, scope: Scope, receive: Receive, limit: int) -> Self:
        """Read a JSON body, and parse it unless routing has done so.

        Raises:
            RefusedError: it is larger than `limit` bytes, no JSON object, or may name an adapter other than as `model`.
            ClientDisconnect: the client has gone.
        """
        raw = await read_body(receive, datastructures.Headers(scope=scope), limit)
        request = scope.get(REQUEST) or await off_loop(lambda: parse_object(raw), raw)
        if not request:
            raise RefusedError("the body must be a JSON object that says what is asked for")
        if not isinstance(request.get("model"), str | None):
            raise RefusedError('"model" must be the name of a model', param="model")
        if (beside := await off_loop(lambda: named_beside(request), raw)) is not None:
            raise RefusedError(
                f'{reprlib.repr(beside)} may name an adapter past the registry: name it as "model", and leave that out',
                param=beside[:64],
            )
        return cls(raw, request)

    @property
    def model(self) -> str | None:
        """The model that the request names; an empty name counts as none."""
        return self.request.get("model") or None

    async def off_loop(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, computed in a thread where the body is large."""
        return await off_loop(work, self.raw)

    async def content(self, fields: Mapping[str, Any] | None) -> bytes | None:
        """What to send: the request, changed by `fields`."""
        if not self.request:
            return None
        changed = {**self.request, **(fields or {})}
        return await self.off_loop(lambda: dump(changed))


@dataclass
class _Call:
    """One request on its way."""

    scope: Scope
    receive: Receive
    send: Send
    loader: FleetLoader
    authorization: bytes | None
    body: Body
    answered: bool = False

    async def run(self) -> None:
        """Forward until the answer is complete or the client has gone."""
        forward = asyncio.create_task(self._forward())
        gone = asyncio.create_task(self._gone())
        try:
            await asyncio.wait({forward, gone}, return_when=asyncio.FIRST_COMPLETED)
            # The end of the answer looks like a client that went away; then only clearing up is left.
            if not (forward.done() or self.answered):
                forward.cancel()
            await asyncio.wait({forward})
            if not forward.cancelled():
                forward.result()
        finally:
            for task in (forward, gone):
                task.cancel()
            await asyncio.gather(forward, gone, return_exceptions=True)

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _forward(self) -> None:
        tried: dict[Upstream, str] = {}
        while targets := await self._untried(tried):
            conversation = None
            if len(targets) > 1:
                conversation = await self.body.off_loop(lambda: conversation_key(self.body.request))
            target = choose(targets, conversation)
            try:
                with target.upstream.occupied():
                    await self._exchange(target)
                return
            except NotSentError as exc:
                tried[target.upstream] = str(exc)
        raise NoUpstreamError(self._why(tried))

    async def _untried(self, tried: Mapping[Upstream, str]) -> list[Target]:
        """Who is left to ask; where that is nobody, another upstream may load the adapter."""
        left = self._left(tried)
        if left or (adapter := self.loader.adapter(self.body.model)) is None:
            return left
        with suppress(LoadError):
            await self.loader.ensure(adapter.name)
        return self._left(tried)

    def _left(self, tried: Mapping[Upstream, str]) -> list[Target]:
        targets = self.loader.targets(self.body.model, self.scope["path"])
        return [target for target in targets if target.upstream not in tried]

    def _why(self, tried: Mapping[Upstream, str]) -> str:
        if tried:
            return "; ".join(tried.values())
        if not self.loader.any_healthy():
            return "no upstream answers: start one, or see /health for each one's reason"
        if self.loader.adapter(self.body.model) is not None:
            return f"no upstream has the adapter {self.body.model!r}, and none can load it"
        return "no upstream says which of its models is the base model: name it with --alias base=NAME"

    async def _exchange(self, target: Target) -> None:
        """Send the request and hand on the answer.

        Raises:
            NotSentError: no connection was made.
        """
        content = await self.body.content(target.fields)
        headers = request_headers(self.scope["headers"], authorization=self.authorization)
        query: bytes = self.scope["query_string"]
        # The path that was compared, and the query as the client wrote it.
        path = self.scope["path"].encode() + (b"?" + query if query else b"")
        try:
            response = await target.upstream.send(self.scope["method"], path, headers, content)
        except httpx.HTTPError as exc:
            _logger.warning("upstream %s: %s", target.upstream.url, type(exc).__name__)
            await self._fail(f"the upstream broke off before it answered: {type(exc).__name__}")
            return
        self._mark_absent(target, response.status_code)
        if target.adapter is not None and response.is_success:
            target.upstream.recent.asked(target.adapter)
        try:
            if response.has_redirect_location:
                _logger.warning("upstream %s redirects: give its final address", target.upstream.url)
                await self._fail("the upstream wants to be asked elsewhere, where the gateway does not follow")
            else:
                await self._relay(response, target)
        finally:
            await response.aclose()

    async def _fail(self, message: str) -> None:
        self.answered = True
        await error_response(502, message)(self.scope, self.receive, self.send)

    def _mark_absent(self, target: Target, status: int) -> None:
        """An upstream restarted between two checks does not know a name that it once loaded.

        At other paths a 404 says nothing of the name, and any client could take an adapter from all others by it.
        """
        adapter = self.loader.adapter(self.body.model)
        if status == 404 and adapter is not None and self.scope["path"] in _EVERYWHERE:
            target.upstream.forget(adapter)

    async def _relay(self, response: httpx.Response, target: Target) -> None:
        headers = response_headers(response.headers.raw, cookies=self.authorization is None)
        await self.send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        try:
            async for chunk in response.aiter_raw():
                await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.HTTPError as exc:
            # Left incomplete, so that the client's connection breaks as ours did.
            _logger.warning("upstream %s broke off an answer: %s", target.upstream.url, type(exc).__name__)
            return
        self.answered = True
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def upstream_authorization(options: GatewayOptions, *, keyed: bool) -> bytes | None:
    """What upstreams get in place of a client's credentials, as `request_headers` takes it.

    Where clients hold a key of the gateway's own, no upstream may see it.
    """
    if options.upstream_key:
        return f"Bearer {options.upstream_key}".encode()
    return b"" if keyed else None


def request_headers(headers: Iterable[tuple[bytes, bytes]], *, authorization: bytes | None) -> Headers:
    """A client's headers for an upstream, without the administrator's key and the web page that asked.

    `authorization` replaces the client's credentials, in whichever header they are; empty, they are left out; None lets
    them pass.
    """
    dropped = _OF_THIS_REQUEST if authorization is None else _OF_THIS_REQUEST | _CREDENTIALS
    kept = _end_to_end(headers, dropped, _CROSS_ORIGIN)
    return [*kept, (b"authorization", authorization)] if authorization else kept


def response_headers(headers: Iterable[tuple[bytes, bytes]], *, cookies: bool) -> Headers:
    """An upstream's headers for the client; which adapter answered, and which pages may read it, the gateway says.

    `cookies` says whether the upstream would be given its cookies back.
    """
    dropped = _OF_THE_UPSTREAM if cookies else _OF_THE_UPSTREAM | {b"set-cookie"}
    return _end_to_end(headers, dropped, (b"x-traitroute-", _CROSS_ORIGIN))


def _end_to_end(
    headers: Iterable[tuple[bytes, bytes]], dropped: set[bytes], prefixes: bytes | tuple[bytes, ...]
) -> Headers:
    """The headers, names in lower case, without `dropped` and what concerns one connection only (RFC 9110, 7.6.1)."""
    lower = [(name.lower(), value) for name, value in headers]
    tokens = b",".join(value for name, value in lower if name == b"connection").split(b",")
    dropped = dropped | _HOP_BY_HOP | {token.strip().lower() for token in tokens}
    return [header for header in lower if header[0] not in dropped and not header[0].startswith(prefixes)]


class Retry:
    """Pure ASGI middleware around routing: a request that no upstream took is routed once more.

    Between two checks an upstream can go away with the only copy of an adapter, after routing has chosen it. As nothing
    was sent, routing may choose again, and now knows that the adapter is out of reach: the base model may answer.
    Bodies beyond `limit` bytes are not kept, and so not routed again.
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = _KeptRequest(receive, send, self.limit)
        try:
            await self.app(scope, kept.receive, kept.send)
            return
        except NoUpstreamError as exc:
            why = str(exc)
        try:
            if kept.whole:
                await self.app(scope, kept.replayed(), send)
                return
        except NoUpstreamError as exc:
            why = str(exc)
        await error_response(503, why, headers={"retry-after": str(RETRY_AFTER_S)})(scope, receive, send)


class _KeptRequest:
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
            self._drop()
        if self.whole:
            self._messages.append(message)
        return message

    async def send(self, message: Message) -> None:
        self._drop()
        await self._send(message)

    def replayed(self) -> Receive:
        messages = iter(self._messages)

        async def receive() -> Message:
            return next(messages, None) or await self._receive()

        return receive

    def _drop(self) -> None:
        self.whole = False
        self._messages.clear()
