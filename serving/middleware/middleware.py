"""The ASGI middleware: where a request is for `auto`, have an adapter chosen, and hand the request on.

`/invocations` (SageMaker's) takes no model from the body: vLLM overwrites it with the header
`X-Amzn-SageMaker-Adapter-Identifier`, or with nothing. There `auto` is asked for in that header or in
`x-traitroute-model`, and the choice goes on in the header; without either the path is left alone.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...adapters import InputError
from ...router import request_text
from ..constraints import KEY, PREFIX, Constraints, Limits, check_model, check_sole, limits_adapters, no_such_model
from ..http.body import REQUEST, dump, off_loop, parse_object, read_body, replay
from ..http.errors import RefusedError
from ..http.keys import KEY_DIGEST
from ..http.tenants import Tenant, tenant_of
from ..loading import LoadError
from ..snapshot import RegistrySnapshot
from ..state import AUTO, ServerState
from .choice import CHOSEN, Choice, Chooser, RawHeaders, load
from .outcomes import Outcomes
from .record import DECISIONS, Recorder

MODEL_HEADER = "x-traitroute-model"
INVOCATIONS = "/invocations"


@dataclass(frozen=True)
class Endpoint:
    """A routed path; the first of `fields` that a body has carries its text.

    A list of several prompts or inputs is one request for one adapter: its first entry with text is routed. A body
    without any of them may have one of `wordless` in its place.
    """

    path: str
    fields: tuple[str, ...]
    wordless: tuple[str, ...] = ()

    @property
    def routed(self) -> bool:
        """Whether `auto` may be asked for here."""
        return bool(self.fields)

    def text(self, body: Mapping[str, Any], *, last: bool = False) -> str:
        """Return the first user turn that says something, or with `last` the last one; empty where none does.

        Raises:
            RefusedError: the body is malformed.
        """
        field = next((f for f in self.fields if body.get(f) not in (None, [])), None)
        if field is None:
            if any(body.get(f) is not None for f in self.wordless):
                return ""
            field = next((f for f in self.fields if body.get(f) is not None), None)
        if field is None:
            wanted = " or ".join(f'"{f}"' for f in self.fields)
            raise RefusedError(f"no text to route: the body needs {wanted}", param=self.fields[0])
        try:
            return request_text(_conversation(field, body), last=last)
        except InputError as exc:
            message = _NO_INPUT if field == "input" else str(exc)
            raise RefusedError(message, param=field) from exc


_NO_INPUT = 'no text to route: "input" must be text, token ids, or a list of them or of messages'

_INPUT = ("messages", "input")
ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/v1/chat/completions", ("messages",)),
        Endpoint("/v1/completions", ("prompt",), ("prompt_embeds",)),
        Endpoint("/v1/responses", ("input",), ("previous_response_id", "conversation", "prompt")),
        Endpoint("/v1/messages", ("messages",)),
        Endpoint("/v1/messages/count_tokens", ("messages",)),
        Endpoint("/v1/embeddings", _INPUT),
        Endpoint("/tokenize", ("messages", "prompt")),
        Endpoint("/pooling", _INPUT, ("data",)),
        Endpoint(INVOCATIONS, ("messages", "prompt", "input"), ("prompt_embeds", "data")),
    )
}
OTHER = Endpoint("", ())
"""Any other path, of a request whose headers or whose key say which adapters may answer."""
UNROUTED = frozenset(
    {
        *("/classify", "/cohere/v2/chat", "/detokenize", "/generative_scoring", "/inference/v1/generate", "/rerank"),
        *("/score", "/v1/chat/completions/batch", "/v1/moderations", "/v1/rerank", "/v1/score", "/v2/embed"),
        *("/v2/rerank", "/encode", "/generate", "/v1/classify", "/v1/detokenize", "/v1/tokenize"),
    }
)
"""Other paths where servers take a model's name in a JSON body, and in no other way."""


@dataclass(frozen=True)
class _Asked:
    """A request as it came, and the snapshot that it is answered by; `request` is its body if that is a JSON object."""

    endpoint: Endpoint
    scope: Scope
    body: bytes
    request: dict[str, Any] | None
    wanted: Constraints
    snapshot: RegistrySnapshot

    @property
    def headers(self) -> Headers:
        """The request's headers."""
        return Headers(scope=self.scope)

    @property
    def is_bound(self) -> bool:
        """Whether not every adapter may answer, so that nothing but `model` may name one."""
        return self.wanted.limits_adapters or not self.snapshot.tenant.may_all


@dataclass(frozen=True)
class _Forwarded:
    """The request to hand on, and what the response's headers say of the choice where it was ours to make.

    `token` is the decision's, empty where there is none.
    """

    scope: Scope
    body: bytes
    headers: RawHeaders | None = None
    token: str = ""


class RoutingMiddleware:
    """Pure ASGI middleware that turns `auto` into an adapter's name, or the base model's."""

    def __init__(self, app: ASGIApp, *, state: ServerState) -> None:
        self.app = app
        self.state = state
        self._chooser = Chooser(state)
        self._recorder = Recorder(state.counts)
        self.outcomes = Outcomes(state.experiment.outcomes, judge=state.experiment.judge)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and (limits_adapters(scope) or not tenant_of(scope).may_all):
            # Which adapter is asked for is said when it is open, to the app behind.
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        elif endpoint := self._endpoint(scope := _without_slash(scope)):
            await self._serve(endpoint, scope, receive, send)
        elif scope["method"] == "GET" and _path(scope).startswith(DECISIONS):
            await self._explanation(_path(scope).removeprefix(DECISIONS), tenant_of(scope))(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _endpoint(self, scope: Scope) -> Endpoint | None:
        """The endpoint that a request is for, where it must be looked into."""
        if scope["method"] != "POST":
            return None
        endpoint = ENDPOINTS.get(_path(scope))
        header = self.state.invocations_header
        if endpoint is not None and endpoint.path == INVOCATIONS:
            asked = header and _asked_model(Headers(scope=scope), header)
            endpoint = endpoint if asked else None
        bound = limits_adapters(scope) or (not tenant_of(scope).may_all and _path(scope) in {*UNROUTED, INVOCATIONS})
        return endpoint or (OTHER if bound else None)

    async def _serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            forwarded = await self._forward(await self._read(endpoint, scope, receive))
        except RefusedError as refused:
            await refused.response()(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if forwarded.headers:
            send = _with_headers(send, forwarded.headers)
        if forwarded.token and (location := self.state.snapshot.location) is not None:
            request = forwarded.scope.get(REQUEST) or {}
            send = self.outcomes.judging(send, endpoint.path, request, forwarded.token, location)
        await self.app(forwarded.scope, replay(forwarded.body, receive), send)

    async def _read(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> _Asked:
        headers = Headers(scope=scope)
        body = await read_body(receive, headers, self.state.max_body_bytes)
        request = await off_loop(partial(parse_object, body), body)
        given = request.get(KEY) if request is not None and endpoint.routed else None
        snapshot = self.state.seen_by(tenant_of(scope))
        wanted = Constraints.of(headers, given, known=snapshot.adapters)
        if wanted.session is not None and snapshot.tenant.name:
            # What a session's key means is between one tenant and the server.
            wanted = wanted.model_copy(update={"session": f"{snapshot.tenant.name}\0{wanted.session}"})
        return _Asked(endpoint, scope, body, request, wanted, snapshot)

    async def _forward(self, asked: _Asked) -> _Forwarded:
        if asked.is_bound:
            await off_loop(partial(check_sole, asked.request), asked.body)
        model = (asked.request or {}).get("model")
        if asked.endpoint.path == INVOCATIONS:
            model = _asked_model(asked.headers, self.state.invocations_header)
        check_model(model)
        if model == AUTO and asked.endpoint.routed:
            return await self._route(asked)
        name = model if isinstance(model, str) else None
        if not name and not asked.snapshot.tenant.may_all:
            # Who answers where no model is named is for the server to say, and not always base.
            name = self.state.base_names[0]
        _check_admitted(self.state, asked.snapshot, name, asked.wanted)
        if name is not None and name in asked.snapshot.adapters and asked.endpoint.routed:
            await self._load_named(name)
        return await self._handed_on(asked, name)

    async def _route(self, asked: _Asked) -> _Forwarded:
        wanted, request = asked.wanted, asked.request or {}

        async def text(last: bool) -> str:
            return await off_loop(partial(asked.endpoint.text, request, last=last), asked.body)

        with self._recorder.recording(asked.headers) as record:
            choice = await self._chooser.choose(text, wanted, asked.snapshot, client=asked.scope.get(KEY_DIGEST, b""))
            record(choice)
        token = _token(choice, asked.snapshot)
        headers = choice.headers()
        if token:
            headers.append((b"x-traitroute-decision-token", token.encode("ascii")))
        if wanted.explain:
            headers += self._recorder.explain(choice, asked.snapshot.tenant)
        name = choice.adapter or self.state.base_names[0]
        return replace(await self._handed_on(asked, name), headers=headers, token=token)

    async def _handed_on(self, asked: _Asked, name: str | None) -> _Forwarded:
        """The request for the model `name`; its body stays as it came where nothing in it has to change."""
        scope, request = asked.scope, asked.request
        if asked.endpoint.path == INVOCATIONS and name is not None:
            scope = _with_model(scope, self.state.invocations_header, name)
        if request is None:
            return _Forwarded(scope, asked.body)
        fields = dict(request)
        if asked.endpoint.routed:
            fields.pop(KEY, None)
        if asked.endpoint.path != INVOCATIONS and name is not None:
            fields["model"] = name
        scope, body = {**scope, REQUEST: fields}, asked.body
        # Where constraints hold, the app behind must not find a second `model` that its parser prefers.
        if fields != request or asked.is_bound:
            body = await off_loop(partial(dump, fields), body)
            scope["headers"] = _with_length(scope["headers"], len(body))
        return _Forwarded(scope, body)

    async def _load_named(self, name: str) -> None:
        try:
            await load(self.state.loader, name)
        except LoadError as exc:
            self._recorder.load_failure(name)
            raise RefusedError(str(exc), param="model") from exc

    def _explanation(self, decision_id: str, tenant: Tenant) -> Response:
        explanation = self._recorder.find(decision_id, tenant)
        if explanation is not None:
            return Response(explanation, media_type="application/json")
        return RefusedError(
            "no such decision is kept here: only the newest explained ones are, in the server process that "
            "made them; the header x-traitroute-decision of the answer holds it too",
            status=404,
        ).response()


def _token(choice: Choice, snapshot: RegistrySnapshot) -> str:
    """The token by which feedback is given, of a decision that this request's answer shows the worth of, else empty."""
    if snapshot.skills is None or choice.decision is None or choice.kind not in CHOSEN:
        return ""
    token = snapshot.skills.token(
        choice.decision,
        choice.adapter,
        choice.gain,
        arm=choice.arm,
        propensity=choice.propensity,
        conversation=choice.conversation,
        entry=choice.entry,
    )
    return token or ""


def _check_admitted(state: ServerState, snapshot: RegistrySnapshot, model: str | None, limits: Limits) -> None:
    """Check that the adapter asked for by the name `model` may answer; the base model always may.

    Raises:
        RefusedError: the registry withholds it, or its tenant may not use it, which look the same; or a constraint,
            which the message names, does not admit it.
    """
    name = state.resolve(model) if model else ""
    if not name or name in state.base_names:
        return
    if name in snapshot.withheld or not snapshot.may_name(name):
        raise no_such_model(name)
    broken = limits.broken_by(name, snapshot.tags_of(name))
    if broken is not None:
        raise RefusedError(
            f"the request's constraint {broken} (the header {PREFIX}{broken}, or {KEY}.{broken} in the body) does not "
            f"admit {reprlib.repr(name)}: ask for auto, the base model or an adapter that it admits",
            status=403,
            param="model",
        )


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _without_slash(scope: Scope) -> Scope:
    """The scope without a slash at the end of a routed path, for which the app behind would redirect, unrouted."""
    path: str = scope["path"]
    if not path.endswith("/") or _path(scope)[:-1] not in ENDPOINTS:
        return scope
    return {**scope, "path": path[:-1], "raw_path": path[:-1].encode()}


def _with_length(headers: RawHeaders, length: int) -> RawHeaders:
    kept = [h for h in headers if h[0] not in (b"content-length", b"transfer-encoding")]
    return [*kept, (b"content-length", str(length).encode("ascii"))]


def _with_headers(send: Send, added: RawHeaders) -> Send:
    """Add headers to a response, in place of those of these names; not to an error, which no adapter gave."""
    names = {name for name, _ in added}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] < 400:
            kept = [h for h in message.get("headers", []) if h[0].lower() not in names]
            message = {**message, "headers": [*kept, *added]}
        await send(message)

    return send_with_headers


def _asked_model(headers: Headers, invocations_header: str) -> str | None:
    """Return the model that a request for `/invocations` asks for in its headers: the first that is not empty."""
    names = headers.getlist(MODEL_HEADER) + headers.getlist(invocations_header)
    return next(filter(None, names), None)


def _with_model(scope: Scope, invocations_header: str, name: str) -> Scope:
    """Return the scope of a request for `/invocations` that asks for `name`."""
    key = invocations_header.lower().encode("latin-1")
    replaced = (key, MODEL_HEADER.encode())
    kept = [h for h in scope["headers"] if h[0].lower() not in replaced]
    return {**scope, "headers": [*kept, (key, name.encode("latin-1"))]}


def _conversation(field: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Put what `field` holds into the form that the router reads."""
    value = body[field]
    if field == "input" and isinstance(earlier := body.get("previous_input_messages"), list):
        value = [*earlier, *(value if isinstance(value, list) else [_user(value)])]
    if isinstance(value, list) and value and isinstance(value[0], list) and field != "prompt":
        value = value[0]
    turns = isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    return {"messages": value} if field == "messages" or turns else {"prompt": value}


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}
