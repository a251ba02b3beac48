"""Forward requests to upstreams: nothing buffered on the way back, nothing sent twice.

A chunk is asked of the upstream only when the client's connection has taken the one before, so a slow
reader slows the upstream down and the gateway holds no queue. A client that goes away ends the request
at the upstream. Only a request that no connection was made for is tried elsewhere.
"""

import asyncio
import logging
from contextlib import suppress

import httpx
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ...adapters import Adapter
from ..replies import error_reply
from ..routing import LoadError
from .body import Body
from .fleet import Target, choose, conversation_key
from .headers import request_headers, response_headers
from .loader import FleetLoader
from .options import GatewayOptions
from .upstream import NotSentError, Upstream

MAX_MODEL_BYTES = 8 * 2**20
"""Bodies beyond this size are passed on without a look at the model that they name."""

_CLOSED = frozenset(
    (
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/load_lora_adapter",
        "/load_lora_adapter_from_tensors",
        "/unload_lora_adapter",
    )
)
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
        if scope["path"] in _CLOSED or not _target(scope).startswith(b"/"):
            message = f"{scope['path']} is not open through the gateway: ask the upstream itself"
            await error_reply(403, message)(scope, receive, send)
            return
        call = _Call(scope, receive, send, self._loader, self._authorization)
        with suppress(ClientDisconnect):
            await call.run()


class _Call:
    """One request on its way."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        loader: FleetLoader,
        authorization: bytes | None,
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._loader = loader
        self._authorization = authorization
        self._body = Body(scope, receive)
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
        await self._body.read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _forward(self) -> None:
        self._request = await self._body.request(MAX_MODEL_BYTES)
        model = self._request.get("model")
        self._model = model if isinstance(model, str) else None
        conversation = conversation_key(self._request)
        tried: dict[Upstream, str] = {}
        while targets := await self._untried(tried):
            target = choose(targets, conversation)
            try:
                with target.upstream.occupied():
                    await self._exchange(target)
                return
            except NotSentError as exc:
                tried[target.upstream] = str(exc)
        raise UntakenError(self._why(tried))

    async def _untried(self, tried: dict[Upstream, str]) -> list[Target]:
        """Who is left to ask; where that is nobody, another upstream may load the adapter."""
        if self._body.taken:
            return []
        left = [t for t in self._loader.targets(self._model) if t.upstream not in tried]
        if left or (adapter := self._loader.adapter(self._model)) is None:
            return left
        with suppress(LoadError):
            await self._loader.ensure(adapter.name)
        return [t for t in self._loader.targets(adapter.name) if t.upstream not in tried]

    def _why(self, tried: dict[Upstream, str]) -> str:
        if tried:
            return "; ".join(tried.values())
        if not self._loader.any_healthy():
            return "no upstream answers: start one, or see /health for what each of them said"
        if self._loader.adapter(self._model) is not None:
            return f"no upstream has the adapter {self._model!r}, and none can load it"
        return (
            "no upstream says which of its models is the base model: name it with --alias base=NAME"
        )

    async def _exchange(self, target: Target) -> None:
        """Send the request and hand on the answer.

        Raises:
            NotSentError: no connection was made.
        """
        content = self._body.content(self._request, target.fields)
        headers = request_headers(self._scope["headers"], authorization=self._authorization)
        headers += self._body.headers(content)
        try:
            response = await target.upstream.send(
                self._scope["method"], _target(self._scope), headers, content
            )
        except httpx.HTTPError as exc:
            _logger.warning("upstream %s: %s", target.upstream.url, type(exc).__name__)
            message = f"the upstream broke off before it answered: {type(exc).__name__}"
            self._answered = True
            await error_reply(502, message)(self._scope, self._receive, self._send)
            return
        finally:
            self._body.read.set()
        self._mark_absent(target, response.status_code)
        try:
            await self._relay(response, target)
        finally:
            await response.aclose()

    def _mark_absent(self, target: Target, status: int) -> None:
        """An upstream restarted between two checks does not know a name that it once loaded."""
        adapter: Adapter | None = self._loader.adapter(self._model)
        if status == 404 and adapter is not None:
            target.upstream.forget(adapter)

    async def _relay(self, response: httpx.Response, target: Target) -> None:
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response_headers(response.headers.raw),
        }
        await self._send(start)
        try:
            async for chunk in response.aiter_raw():
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.HTTPError as exc:
            # Left incomplete, the client sees the connection break, as it did here.
            _logger.warning(
                "upstream %s broke off an answer: %s", target.upstream.url, type(exc).__name__
            )
            return
        self._answered = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _target(scope: Scope) -> bytes:
    """Path and query as the client wrote them."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return path.partition(b"?")[0] + (b"?" + query if query else b"")
