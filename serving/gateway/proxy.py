"""Forward requests to upstreams: what is open there and no more, nothing buffered on the way back, nothing sent twice.

A chunk is asked of the upstream only when the client's connection has taken the one before, so a slow
reader slows the upstream down and the gateway holds no queue. A client that goes away ends the request
at the upstream. Only a request that no connection was made for is tried elsewhere.
"""

import asyncio
import logging
from contextlib import suppress

import httpx
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from ...adapters import Adapter
from ..http.errors import RefusedError, error_response
from ..middleware import LoadError
from .body import Body
from .dialects import has_body, open_method
from .fleet import Target, choose, conversation_key
from .headers import request_headers, response_headers
from .loader import FleetLoader
from .options import GatewayOptions
from .upstream import NotSentError, Upstream

MAX_BODY_BYTES = 8 * 2**20
_EVERYWHERE = ("/v1/chat/completions", "/v1/completions")
_logger = logging.getLogger(__name__)


class UntakenError(Exception):
    """No upstream has got anything of the request, and none is left to ask for this model."""


class Proxy:
    """The ASGI app behind the routing middleware."""

    def __init__(self, loader: FleetLoader, options: GatewayOptions) -> None:
        self._loader = loader
        # With a key of its own the gateway's clients hold that one, which is no upstream's business.
        passes = options.key is None and options.upstream_key is None
        ours = f"Bearer {options.upstream_key}".encode() if options.upstream_key else b""
        self._authorization = None if passes else ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        path, method = scope["path"], open_method(scope["path"])
        if method != scope["method"]:
            await _closed(path, method)(scope, receive, send)
            return
        try:
            body = Body()
            if has_body(path):
                body = await Body.read(scope, receive, MAX_BODY_BYTES)
            await _Call(scope, receive, send, self._loader, self._authorization, body).run()
        except RefusedError as refused:
            await refused.response()(scope, receive, send)
        except ClientDisconnect:
            return


def _closed(path: str, method: str | None) -> JSONResponse:
    if method is None:
        return error_response(404, f"{path[:200]} is not open through the gateway: ask the upstream itself")
    return error_response(405, f"{path} wants {method}", headers={"allow": method})


class _Call:
    """One request on its way."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        loader: FleetLoader,
        authorization: bytes | None,
        body: Body,
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._loader = loader
        self._authorization = authorization
        self._body = body
        self._answered = False

    async def run(self) -> None:
        """Forward until the answer is complete or the client has gone."""
        forward = asyncio.create_task(self._forward())
        gone = asyncio.create_task(self._gone())
        try:
            await asyncio.wait({forward, gone}, return_when=asyncio.FIRST_COMPLETED)
            # The end of the answer reads like a client that went away; then only clearing up is left.
            if not (forward.done() or self._answered):
                forward.cancel()
            await asyncio.wait({forward})
            if not forward.cancelled():
                forward.result()
        finally:
            for task in (forward, gone):
                task.cancel()
            await asyncio.gather(forward, gone, return_exceptions=True)

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _forward(self) -> None:
        tried: dict[Upstream, str] = {}
        while targets := await self._untried(tried):
            target = choose(targets, await self._conversation(targets))
            try:
                with target.upstream.occupied():
                    await self._exchange(target)
                return
            except NotSentError as exc:
                tried[target.upstream] = str(exc)
        raise UntakenError(self._why(tried))

    async def _conversation(self, targets: list[Target]) -> bytes | None:
        """What the choice between targets goes by, where there is one."""
        if len(targets) == 1:
            return None
        return await self._body.off_loop(lambda: conversation_key(self._body.request))

    async def _untried(self, tried: dict[Upstream, str]) -> list[Target]:
        """Who is left to ask; where that is nobody, another upstream may load the adapter."""
        left = self._left(tried)
        if left or (adapter := self._loader.adapter(self._body.model)) is None:
            return left
        with suppress(LoadError):
            await self._loader.ensure(adapter.name)
        return self._left(tried)

    def _left(self, tried: dict[Upstream, str]) -> list[Target]:
        targets = self._loader.targets(self._body.model, self._scope["path"])
        return [target for target in targets if target.upstream not in tried]

    def _why(self, tried: dict[Upstream, str]) -> str:
        if tried:
            return "; ".join(tried.values())
        if not self._loader.any_healthy():
            return "no upstream answers: start one, or see /health for what each of them said"
        if self._loader.adapter(self._body.model) is not None:
            return f"no upstream has the adapter {self._body.model!r}, and none can load it"
        return "no upstream says which of its models is the base model: name it with --alias base=NAME"

    async def _exchange(self, target: Target) -> None:
        """Send the request and hand on the answer.

        Raises:
            NotSentError: no connection was made.
        """
        content = await self._body.content(target.fields)
        headers = request_headers(self._scope["headers"], authorization=self._authorization)
        try:
            response = await target.upstream.send(self._scope["method"], _target(self._scope), headers, content)
        except httpx.HTTPError as exc:
            _logger.warning("upstream %s: %s", target.upstream.url, type(exc).__name__)
            message = f"the upstream broke off before it answered: {type(exc).__name__}"
            await self._fail(message)
            return
        self._mark_absent(target, response.status_code)
        try:
            if response.has_redirect_location:
                _logger.warning("upstream %s redirects: give its final address", target.upstream.url)
                await self._fail("the upstream wants to be asked elsewhere, where the gateway does not follow")
            else:
                await self._relay(response, target)
        finally:
            await response.aclose()

    async def _fail(self, message: str) -> None:
        self._answered = True
        reply = error_response(502, message)
        await reply(self._scope, self._receive, self._send)

    def _mark_absent(self, target: Target, status: int) -> None:
        """An upstream restarted between two checks does not know a name that it once loaded.

        At other paths a 404 says nothing of the name, and would take an adapter from everybody at anybody's wish.
        """
        adapter: Adapter | None = self._loader.adapter(self._body.model)
        if status == 404 and adapter is not None and self._scope["path"] in _EVERYWHERE:
            target.upstream.forget(adapter)

    async def _relay(self, response: httpx.Response, target: Target) -> None:
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response_headers(response.headers.raw, cookies=self._authorization is None),
        }
        await self._send(start)
        try:
            async for chunk in response.aiter_raw():
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.HTTPError as exc:
            # Left incomplete, the client sees the connection break, as it did here.
            _logger.warning("upstream %s broke off an answer: %s", target.upstream.url, type(exc).__name__)
            return
        self._answered = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _target(scope: Scope) -> bytes:
    """The path that was compared, and the query as the client wrote it."""
    query: bytes = scope["query_string"]
    return scope["path"].encode() + (b"?" + query if query else b"")
