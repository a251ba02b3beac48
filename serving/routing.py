"""Serve `"model": "auto"`: choose an adapter for each request, in front of any OpenAI-compatible app.

Doubt means the base model: whatever goes wrong while choosing or loading, the request is answered, and
a header says why. An adapter asked for by name is never replaced: it is served, or refused with a 400.
"""

import asyncio
import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters import InputError, RunError
from ..router import RoutingDecision, request_text

AUTO = "auto"
BASE = "base"
_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
_logger = logging.getLogger(__name__)


class LoadError(RunError):
    """The server cannot load an adapter."""


class TextRouter(Protocol):
    """Anything that routes text; called in worker threads."""

    def route(self, request: str, /) -> RoutingDecision:
        """Choose an adapter, or base, for a request's text."""
        ...


class AdapterLoader(Protocol):
    """Whatever puts adapters into the engine behind the app."""

    async def ensure(self, name: str) -> None:
        """Return once the adapter can be served by its name.

        Raises:
            LoadError: it cannot be loaded.
        """
        ...


class NoLoader:
    """The loader of a server that has not finished starting."""

    async def ensure(self, name: str) -> None:
        """Refuse."""
        raise LoadError(f"{name!r} cannot be loaded before the server has started")


@dataclass
class Routing:
    """What the middleware goes by; the server replaces fields as its registry changes.

    `base_names` are the names of the bare base model, the first of which its answers bear; `adapters`
    are all other names that may be loaded; `no_router` says why `router` is None. `budget_s` is the time
    a decision may take, in seconds. `counts` counts outcomes of `auto` requests.
    """

    base_names: tuple[str, ...] = (BASE,)
    adapters: frozenset[str] = frozenset()
    router: TextRouter | None = None
    no_router: str = "no-profile: the server is starting"
    loader: AdapterLoader = field(default_factory=NoLoader)
    budget_s: float = 0.05
    max_body_bytes: int = 8 * 2**20
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Choice:
    """Who answers an `auto` request (None: the base model), with what is told in the headers."""

    adapter: str | None
    gain: float
    reason: str

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-traitroute-adapter", (self.adapter or BASE).encode("ascii")),
            (b"x-traitroute-gain", f"{self.gain:+.3f}".encode("ascii")),
            (b"x-traitroute-reason", _header_value(self.reason)),
        ]


@dataclass(frozen=True)
class _Directed:
    """The body to hand on, and the choice when it was ours to make."""

    body: bytes
    choice: _Choice | None = None


class _RefusedError(Exception):
    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        kind = "invalid_request_error"
        error = {"message": message, "type": kind, "param": param, "code": status}
        self.response = JSONResponse({"error": error}, status_code=status)


class RoutingMiddleware:
    """Pure ASGI middleware that turns `auto` into an adapter's name, or the base model's."""

    def __init__(self, app: ASGIApp, *, routing: Routing) -> None:
        self.app = app
        self.routing = routing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or _path(scope) not in _PATHS:
            await self.app(scope, receive, send)
            return
        try:
            body = await _read_body(receive, self.routing.max_body_bytes)
            directed = await self._direct(body)
        except _RefusedError as refused:
            await refused.response(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if directed.choice is not None:
            scope = _with_length(scope, len(directed.body))
            send = _with_headers(send, directed.choice.headers())
        await self.app(scope, _replay(directed.body, receive), send)

    async def _direct(self, body: bytes) -> _Directed:
        request = _parse(body)
        model = request.get("model")
        if model == AUTO:
            choice = await self._choose(_text(request))
            request["model"] = choice.adapter or self.routing.base_names[0]
            return _Directed(json.dumps(request).encode(), choice)
        if isinstance(model, str) and model in self.routing.adapters:
            await self._load_named(model)
        return _Directed(body)

    async def _load_named(self, name: str) -> None:
        try:
            await self.routing.loader.ensure(name)
        except LoadError as exc:
            raise _RefusedError(str(exc), param="model") from exc

    async def _choose(self, text: str) -> _Choice:
        router = self.routing.router
        if router is None:
            return self._doubt(self.routing.no_router)
        try:
            decision = await asyncio.wait_for(
                asyncio.to_thread(router.route, text), self.routing.budget_s
            )
        except TimeoutError:
            return self._doubt(
                f"router-timeout: no choice in {self.routing.budget_s * 1000:.0f} ms"
            )
        except Exception as exc:  # noqa: BLE001 - the outer boundary: no fault of routing fails a request
            # The message may quote the request, so only the type is logged and told.
            return self._doubt(f"router-error: {type(exc).__name__}")
        return await self._load_chosen(decision)

    async def _load_chosen(self, decision: RoutingDecision) -> _Choice:
        if decision.adapter is not None:
            try:
                await self.routing.loader.ensure(decision.adapter)
            except LoadError as exc:
                return self._doubt(f"load-failed: {exc}")
        self.routing.counts["adapter" if decision.adapter else "base"] += 1
        return _Choice(decision.adapter, decision.gain, decision.reason)

    def _doubt(self, reason: str) -> _Choice:
        kind = reason.partition(":")[0]
        self.routing.counts[kind] += 1
        _logger.log(logging.DEBUG if kind == "no-profile" else logging.WARNING, "base: %s", reason)
        return _Choice(None, 0.0, reason)


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", ""))


async def _read_body(receive: Receive, limit: int) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise _RefusedError(f"the body is larger than {limit} bytes: shorten it", status=413)
        more = message.get("more_body", False)
    return bytes(body)


def _parse(body: bytes) -> dict[str, Any]:
    """Parse a JSON object; anything else is empty here and left to the app's own validation."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return request if isinstance(request, dict) else {}


def _text(request: dict[str, Any]) -> str:
    try:
        return request_text(request)
    except InputError as exc:
        raise _RefusedError(
            str(exc), param="prompt" if "prompt" in request else "messages"
        ) from exc


def _header_value(text: str) -> bytes:
    printable = "".join(c if c.isascii() and c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:200].strip().encode("ascii")


def _with_length(scope: Scope, length: int) -> Scope:
    kept = [h for h in scope["headers"] if h[0] not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode("ascii"))]}


def _with_headers(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *headers]}
        await send(message)

    return send_with_headers


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then whatever the client does next: a disconnect must still be seen."""
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay
