"""The ASGI middleware: find out whether a request is for `auto`, let it be chosen for, and hand it on."""

import json
from dataclasses import dataclass, replace
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .body import check_depth, parse, read_body, replay
from .choice import CHOSEN, Choice, RawHeaders
from .chooser import Chooser
from .constraints import KEY, Constraints
from .endpoints import ENDPOINTS, INVOCATIONS, Endpoint, asked_model, with_model
from .explanations import DECISIONS, Explanation, Explanations
from .journal import Journal
from .loader import LoadError, load
from .metrics import open_metrics
from .refusal import RefusedError
from .settings import AUTO, Routing
from .tracing import Tracing


@dataclass(frozen=True)
class _Directed:
    """The request to hand on, and the headers that tell of the choice when it was ours to make."""

    scope: Scope
    body: bytes
    told: RawHeaders | None = None


class RoutingMiddleware:
    """Pure ASGI middleware that turns `auto` into an adapter's name, or the base model's."""

    def __init__(self, app: ASGIApp, *, routing: Routing) -> None:
        self.app = app
        self.routing = routing
        self._chooser = Chooser(routing)
        self._explanations = Explanations()
        self._metrics = open_metrics()
        self._tracing = Tracing()
        self._journal = Journal()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        endpoint = ENDPOINTS.get(path) if scope["method"] == "POST" else None
        if endpoint is not None and self._is_ours(endpoint, scope):
            await self._serve(endpoint, scope, receive, send)
        elif path.startswith(DECISIONS) and scope["method"] == "GET":
            await self._told(path.removeprefix(DECISIONS))(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_ours(self, endpoint: Endpoint, scope: Scope) -> bool:
        if endpoint.path == INVOCATIONS:
            header = self.routing.invocations_header
            return bool(header and asked_model(Headers(scope=scope), header))
        return True

    async def _serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            directed = await self._direct(endpoint, scope, receive)
        except RefusedError as refused:
            await refused.response(anthropic=endpoint.anthropic)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if directed.told:
            send = _with_headers(send, directed.told)
        await self.app(directed.scope, replay(directed.body, receive), send)

    async def _direct(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> _Directed:
        headers = Headers(scope=scope)
        body = await read_body(receive, headers, self.routing.max_body_bytes)
        request = parse(body)
        model = request.get("model")
        if endpoint.path == INVOCATIONS:
            model = asked_model(headers, self.routing.invocations_header)
        if model == AUTO:
            return await self._route(endpoint, scope, request, body)
        if isinstance(model, str) and model in self.routing.adapters:
            await self._load_named(model)
        directed = _Directed(scope, body)
        if endpoint.path == INVOCATIONS and isinstance(model, str):
            directed = self._addressed(directed, model)
        if KEY in request:
            check_depth(request, body)
            del request[KEY]
            directed = _with_body(directed, request)
        return directed

    async def _route(
        self, endpoint: Endpoint, scope: Scope, request: dict[str, Any], body: bytes
    ) -> _Directed:
        check_depth(request, body)
        headers = Headers(scope=scope)
        asked = request.pop(KEY, None)
        wanted = Constraints.of(headers, asked, known=self.routing.adapters)
        with self._tracing.span(headers) as tell:
            choice = await self._chooser.choose(
                lambda: endpoint.text(request, last=wanted.reroute), wanted
            )
            tell(choice)
        self._record(choice)
        told = choice.headers() + self._token(choice)
        if wanted.explain:
            told += self._explained(choice)
        name = choice.adapter or self.routing.base_names[0]
        if endpoint.path == INVOCATIONS:
            directed = self._addressed(_Directed(scope, body, told), name)
            return directed if asked is None else _with_body(directed, request)
        return _with_body(_Directed(scope, body, told), {**request, "model": name})

    async def _load_named(self, name: str) -> None:
        try:
            await load(self.routing.loader, name)
        except LoadError as exc:
            self._metrics.load_failure(name)
            raise RefusedError(str(exc), param="model") from exc

    def _addressed(self, directed: _Directed, name: str) -> _Directed:
        scope = with_model(directed.scope, self.routing.invocations_header, name)
        return replace(directed, scope=scope)

    def _record(self, choice: Choice) -> None:
        counts = self.routing.counts
        counts[choice.kind] += 1
        if choice.sticky:
            counts["sticky"] += 1
        self._metrics.choice(choice)
        self._journal.choice(choice)

    def _token(self, choice: Choice) -> RawHeaders:
        """The token by which feedback is given, of a decision that this request's answer shows the worth of."""
        snapshot, decision = self.routing.snapshot, choice.decision
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


def _with_body(directed: _Directed, request: dict[str, Any]) -> _Directed:
    body = json.dumps(request).encode()
    scope = directed.scope
    kept = [h for h in scope["headers"] if h[0] not in (b"content-length", b"transfer-encoding")]
    length = (b"content-length", str(len(body)).encode("ascii"))
    return replace(directed, scope={**scope, "headers": [*kept, length]}, body=body)


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
