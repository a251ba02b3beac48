"""The ASGI middleware: find out whether a request is for `auto`, let it be chosen for, and hand it on."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..constraints import KEY, Constraints, limits_adapters
from ..http.body import REQUEST, dump, off_loop, parse_object, read_body, replay
from ..http.errors import RefusedError
from ..loading import LoadError, load
from ..state import AUTO, ServerState
from .choice import CHOSEN, Choice, RawHeaders
from .chooser import Chooser
from .endpoints import ENDPOINTS, INVOCATIONS, OTHER, Endpoint, asked_model, with_model
from .explanations import DECISIONS, Explanation, Explanations
from .journal import Journal
from .metrics import open_metrics
from .naming import check_admitted, check_model, check_sole
from .tracing import Tracing


@dataclass(frozen=True)
class _Asked:
    """A request as it came: `request` is its body, where that is a JSON object."""

    endpoint: Endpoint
    scope: Scope
    body: bytes
    request: dict[str, Any] | None
    wanted: Constraints

    @property
    def headers(self) -> Headers:
        """The request's headers."""
        return Headers(scope=self.scope)


@dataclass(frozen=True)
class _Directed:
    """The request to hand on, and the headers that tell of the choice when it was ours to make."""

    scope: Scope
    body: bytes
    told: RawHeaders | None = None


class RoutingMiddleware:
    """Pure ASGI middleware that turns `auto` into an adapter's name, or the base model's."""

    def __init__(self, app: ASGIApp, *, state: ServerState) -> None:
        self.app = app
        self.state = state
        self._chooser = Chooser(state)
        self._explanations = Explanations()
        self._metrics = open_metrics()
        self._tracing = Tracing()
        self._journal = Journal()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and limits_adapters(scope):
            # Which adapter is asked for is said when it is open, to the app behind.
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        elif endpoint := self._endpoint(scope := _without_slash(scope)):
            await self._serve(endpoint, scope, receive, send)
        elif (decision := self._decision(scope)) is not None:
            await self._told(decision)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _endpoint(self, scope: Scope) -> Endpoint | None:
        """The endpoint that a request is for, where it must be looked into."""
        if scope["method"] != "POST":
            return None
        endpoint = ENDPOINTS.get(_path(scope))
        header = self.state.invocations_header
        if endpoint is not None and endpoint.path == INVOCATIONS:
            asked = header and asked_model(Headers(scope=scope), header)
            endpoint = endpoint if asked else None
        return endpoint or (OTHER if limits_adapters(scope) else None)

    def _decision(self, scope: Scope) -> str | None:
        """The id of the decision that a request asks for."""
        path = _path(scope)
        asks = path.startswith(DECISIONS) and scope["method"] == "GET"
        return path.removeprefix(DECISIONS) if asks else None

    async def _serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            directed = await self._direct(await self._read(endpoint, scope, receive))
        except RefusedError as refused:
            await refused.response()(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if directed.told:
            send = _with_headers(send, directed.told)
        await self.app(directed.scope, replay(directed.body, receive), send)

    async def _read(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> _Asked:
        headers = Headers(scope=scope)
        body = await read_body(receive, headers, self.state.max_body_bytes)
        request = await off_loop(lambda: parse_object(body), body)
        given = request.get(KEY) if request is not None and endpoint.routed else None
        wanted = Constraints.of(headers, given, known=self.state.adapters)
        return _Asked(endpoint, scope, body, request, wanted)

    async def _direct(self, asked: _Asked) -> _Directed:
        if asked.wanted.limits_adapters:
            await off_loop(partial(check_sole, asked.request), asked.body)
        model = (asked.request or {}).get("model")
        if asked.endpoint.path == INVOCATIONS:
            model = asked_model(asked.headers, self.state.invocations_header)
        check_model(model)
        if model == AUTO and asked.endpoint.routed:
            return await self._route(asked)
        name = model if isinstance(model, str) else None
        check_admitted(self.state, name, asked.wanted)
        if name in self.state.adapters and asked.endpoint.routed:
            await self._load_named(name)
        return await self._handed_on(asked, name)

    async def _route(self, asked: _Asked) -> _Directed:
        wanted, request = asked.wanted, asked.request or {}

        find_text = partial(asked.endpoint.text, request, last=wanted.reroute)
        with self._tracing.span(asked.headers) as tell:
            choice = await self._chooser.choose(lambda: off_loop(find_text, asked.body), wanted)
            tell(choice)
        self._record(choice)
        told = choice.headers() + self._token(choice)
        if wanted.explain:
            told += self._explained(choice)
        name = choice.adapter or self.state.base_names[0]
        return replace(await self._handed_on(asked, name), told=told)

    async def _handed_on(self, asked: _Asked, name: str | None) -> _Directed:
        """The request for the model `name`; its body stays as it came where nothing in it has to change."""
        scope, request = asked.scope, asked.request
        if asked.endpoint.path == INVOCATIONS and name is not None:
            scope = with_model(scope, self.state.invocations_header, name)
        if request is None:
            return _Directed(scope, asked.body)
        fields = dict(request)
        if asked.endpoint.routed:
            fields.pop(KEY, None)
        if asked.endpoint.path != INVOCATIONS and name is not None:
            fields["model"] = name
        scope, body = {**scope, REQUEST: fields}, asked.body
        # Where constraints hold, the app behind must not find a second `model` that its parser prefers.
        if fields != request or asked.wanted.limits_adapters:
            body = await off_loop(lambda: dump(fields), body)
            scope["headers"] = _with_length(scope["headers"], len(body))
        return _Directed(scope, body)

    async def _load_named(self, name: str) -> None:
        try:
            await load(self.state.loader, name)
        except LoadError as exc:
            self._metrics.load_failure(name)
            raise RefusedError(str(exc), param="model") from exc

    def _record(self, choice: Choice) -> None:
        counts = self.state.counts
        counts[choice.kind] += 1
        if choice.sticky:
            counts["sticky"] += 1
        self._metrics.choice(choice)
        self._journal.choice(choice)

    def _token(self, choice: Choice) -> RawHeaders:
        """The token by which feedback is given, of a decision that this request's answer shows the worth of."""
        snapshot, decision = self.state.snapshot, choice.decision
        if snapshot is None or decision is None or choice.kind not in CHOSEN:
            return []
        token = snapshot.token(decision, choice.adapter, choice.gain)
        return [(b"x-traitroute-decision-token", token.encode("ascii"))] if token else []

    def _explained(self, choice: Choice) -> RawHeaders:
        explanation = Explanation.of(choice)
        self._explanations.keep(explanation)
        return explanation.headers()

    def _told(self, decision_id: str) -> Response:
        explanation = self._explanations.find(decision_id)
        if explanation is not None:
            return Response(explanation, media_type="application/json")
        return RefusedError(
            "no such decision is kept here: only the newest explained ones are, in the server process that "
            "made them; the header x-traitroute-decision of the answer holds it too",
            status=404,
        ).response()


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _without_slash(scope: Scope) -> Scope:
    """The scope of a routed path that was asked for with a slash at its end: the app behind would redirect, unrouted."""
    path: str = scope["path"]
    if not path.endswith("/") or _path(scope)[:-1] not in ENDPOINTS:
        return scope
    return {**scope, "path": path[:-1], "raw_path": path[:-1].encode()}


def _with_length(headers: RawHeaders, length: int) -> RawHeaders:
    kept = [h for h in headers if h[0] not in (b"content-length", b"transfer-encoding")]
    return [*kept, (b"content-length", str(length).encode("ascii"))]


def _with_headers(send: Send, told: RawHeaders) -> Send:
    """Tell of the choice in a response's headers, in place of any of these names that are there.

    An error is told nothing: no adapter gave it.
    """
    names = {name for name, _ in told}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] < 400:
            kept = [h for h in message.get("headers", []) if h[0].lower() not in names]
            message = {**message, "headers": [*kept, *told]}
        await send(message)

    return send_with_headers
