"""The gateway inside another server's process, in front of its ASGI app, which is the one upstream.

Ray Serve LLM's ingress and production-stack's router are such apps: they pick the replica or the engine, and know no
`auto`. As their outermost middleware the gateway answers in their place, and asks what was there before without a
network between: its models, the probe, and what clients want once it is routed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, suppress
from typing import Any
from urllib.parse import unquote

import anyio
import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...adapters import Registry
from ..http.errors import error_response
from .app import gateway_app
from .options import GatewayOptions

HERE = "http://localhost"
"""The upstream's URL, which nothing is sent to."""
GRACE_S = 5.0
"""How long an app may take to end a request whose client is gone."""
_logger = logging.getLogger(__name__)
_running: set[asyncio.Task[None]] = set()


class Inside:
    """Pure ASGI middleware that puts the gateway in front of the app that it is added to.

    The `registry` is a path or URL, and opened where the app runs: all that is given here may be pickled. Paths in
    `beside` stay the app's own, and need no key. The app is asked nothing before `is_ready`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        registry: str,
        options: GatewayOptions,
        beside: Collection[str] = (),
        is_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.app = app
        # httpx tells of every request, and Ray's servers log what it tells.
        logging.getLogger("httpx").addFilter(_is_of_others)
        self._is_ready = is_ready
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
        if not self._is_ready():
            await error_response(503, "the app behind the gateway has not started yet")(scope, receive, send)
            return
        state = dict(self._host.get("state", {}))
        await self.app({**scope, **self._host, "state": state}, receive, send)


def _is_of_others(record: logging.LogRecord) -> bool:
    return f"{HERE}/" not in record.getMessage()


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
        self._is_whole = False
        self._task = asyncio.create_task(self._ask(app, scope))
        # The loop itself does not keep them.
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    async def head(self) -> Message:
        """Status and headers of the answer."""
        try:
            return await self._told.receive()
        except anyio.EndOfStream:
            raise self._broken() from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for message in self._told:
            self._is_whole = not message.get("more_body", False)
            yield message.get("body", b"")
            if self._is_whole:
                return
        raise self._broken()

    async def aclose(self) -> None:
        """Tell the app that the client is gone, as a server would, and end it where it does not listen.

        After a whole answer it may go on with what it does in the background.
        """
        self._gone.set()
        self._told.close()
        if self._is_whole:
            return
        await asyncio.wait({self._task}, timeout=GRACE_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self, app: ASGIApp, scope: Scope) -> None:
        async with self._telling:
            try:
                await app(scope, self._receive, self._send)
            except Exception:
                _logger.exception("the app behind the gateway failed at %s", scope["path"])

    async def _send(self, message: Message) -> None:
        with suppress(anyio.BrokenResourceError):
            await self._telling.send(message)

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
