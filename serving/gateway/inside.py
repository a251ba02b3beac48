"""The gateway inside another server's process, in front of its ASGI app, which is the one upstream.

Ray Serve LLM's ingress and production-stack's router are such apps: they pick the replica or the engine, and know no
`auto`. As their outermost middleware the gateway answers in their place, and asks what was there before without a
network between: its models, the probe, and what clients want once it is routed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import unquote

import anyio
import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...adapters import Registry
from .app import gateway_app
from .options import GatewayOptions

HERE = "http://localhost"
"""The upstream's URL, which nothing is sent to."""
_logger = logging.getLogger(__name__)


class Inside:
    """Pure ASGI middleware that puts the gateway in front of the app that it is added to.

    The `registry` is a path or URL, and opened where the app runs: all that is given here may be pickled. Paths in
    `beside` stay the app's own, and need no key.
    """

    def __init__(self, app: ASGIApp, *, registry: str, options: GatewayOptions, beside: Collection[str] = ()) -> None:
        self.app = app
        self._beside = frozenset(beside)
        self._host: dict[str, Any] = {}
        self._gateway = gateway_app(
            options, lambda: Registry.open(registry, read_only=True), transport=AppTransport(self._ask)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run(scope, receive, send)
        elif scope["path"] in self._beside:
            await self.app(scope, receive, send)
        else:
            # A copy, for in a scope an app says that it is the one that answers.
            await self._gateway({**scope}, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run for as long as the app does, which is asked only once it has started."""
        self._host = {name: scope[name] for name in ("app", "state") if name in scope}
        async with AsyncExitStack() as running:

            async def told(message: Message) -> None:
                if message["type"] == "lifespan.startup.complete":
                    await running.enter_async_context(self._gateway.router.lifespan_context(self._gateway))
                await send(message)

            await self.app(scope, receive, told)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = dict(self._host.get("state", {}))
        await self.app({**scope, **self._host, "state": state}, receive, send)


class AppTransport(httpx.AsyncBaseTransport):
    """Asks an ASGI app of this process; unlike httpx's own it gives an answer part by part, as the app does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(self._app, _scope(request), await request.aread())
        try:
            head = await exchange.head()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx.Response(head["status"], headers=head.get("headers", []), stream=exchange)


class _Exchange(httpx.AsyncByteStream):
    """One request to an app, and the parts of its answer; no more than one is ahead of who reads them."""

    def __init__(self, app: ASGIApp, scope: Scope, body: bytes) -> None:
        self._unread: bytes | None = body
        self._gone = asyncio.Event()
        self._telling, self._told = anyio.create_memory_object_stream[Message](0)
        self._task = asyncio.create_task(self._ask(app, scope))

    async def head(self) -> Message:
        """Status and headers of the answer."""
        try:
            return await self._told.receive()
        except anyio.EndOfStream:
            raise self._broken() from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        async for message in self._told:
            yield message.get("body", b"")
            if not (more := message.get("more_body", False)):
                break
        if more:
            raise self._broken()

    async def aclose(self) -> None:
        self._gone.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._told.close()

    async def _ask(self, app: ASGIApp, scope: Scope) -> None:
        async with self._telling:
            try:
                await app(scope, self._receive, self._telling.send)
            except Exception:
                _logger.exception("the app behind the gateway failed at %s", scope["path"])

    async def _receive(self) -> Message:
        if self._unread is None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        body, self._unread = self._unread, None
        return {"type": "http.request", "body": body, "more_body": False}

    def _broken(self) -> httpx.RemoteProtocolError:
        return httpx.RemoteProtocolError("the app behind the gateway broke off")


def _scope(request: httpx.Request) -> Scope:
    raw_path, _, query = request.url.raw_path.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 0),
        "server": ("localhost", None),
    }
