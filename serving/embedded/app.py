"""The embedded server's application: OpenAI's API over a `Decoder`, behind the routing that vLLM has too."""

import asyncio
import reprlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ...adapters import Adapter, InputError, Registry
from ..api_routes import api_routes, is_for_tenants, open_paths
from ..engines.engine import PromptTokenizer
from ..experiment import Experiment
from ..http.addresses import cross_origin
from ..http.body import REQUEST
from ..http.errors import EXCEPTION_HANDLERS, RefusedError, error_response, model_response
from ..http.keys import ApiKeys, KeyCheck
from ..http.metrics_page import Reading, metrics_page
from ..http.tenants import TenantsFile, tenant_of
from ..middleware import RoutingMiddleware
from ..middleware.record import open_metrics
from ..slots import Slots
from ..state import AUTO, ServerState
from ..watcher import RegistryHealth, RegistryWatcher
from .answers import AnswerForm, EventStream, Kind, until_disconnect
from .decoder import Decoder
from .generation import GenerationError, GenerationRequest
from .loader import EmbeddedLoader
from .requests import ChatRequest, CompletionRequest, Context, read_chat, read_completion

ROUTING_BUDGET_S = 0.5
"""More than in front of vLLM: here the router waits for a turn beside the thread that decodes."""
_CLOSED_BY_CLIENT = 499
_ESCAPED = 12
"""The most bytes that JSON takes for a character."""
_OTHER_BYTES = 2**20
"""What a body holds besides its prompt."""
RETRY_AFTER_S = 1
_READERS = 2
"""How many prompts are read at a time: reading a long one takes much memory."""

T = TypeVar("T")


def embedded_app(
    decoder: Decoder,
    tokenizer: PromptTokenizer,
    open_registry: Callable[[], Registry],
    *,
    names: Sequence[str],
    context: int,
    queue: int,
    base_digest: str | None = None,
    api_key: str | None = None,
    origins: Sequence[str] = (),
) -> Starlette:
    """Serve `decoder`, whose base model is called `names`, with sequences of up to `context` tokens.

    `queue` is how many requests may be answered or wait at a time; pages of the web `origins` may read answers.
    """
    slots = Slots.from_environment(decoder.mixed.max_loras)
    loader = EmbeddedLoader(decoder, base_digest=base_digest, on_proof=open_metrics().proof, slots=slots)
    room = Context.of(tokenizer, context)
    state = ServerState(
        base_names=tuple(names),
        loader=loader,
        loaded=loader.holds,
        budget_s=ROUTING_BUDGET_S,
        origins=origins,
        experiment=Experiment.from_environment(),
        slots=slots,
    )
    state.proof = loader.proof
    state.max_body_bytes = min(state.max_body_bytes, room.characters * _ESCAPED + _OTHER_BYTES)
    watcher = RegistryWatcher(state, open_registry, loader.offer)
    endpoints = _Endpoints(decoder, tokenizer, state, loader, room, watcher.health)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        decoder.start()
        await watcher.start()
        try:
            yield
        finally:
            await watcher.stop()
            await asyncio.to_thread(decoder.close)
            endpoints.readers.shutdown(wait=False)

    keys = ApiKeys([api_key or ""], TenantsFile.from_environment())
    refusal = "the API key is missing or wrong"
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
            Route("/v1/completions", endpoints.complete, methods=["POST"]),
            Route("/v1/models", endpoints.models),
            Route("/v1/models/{name:path}", endpoints.model),
            Route("/health", endpoints.health),
            Route("/metrics", endpoints.metrics),
            *api_routes(state),
        ],
        middleware=[
            *cross_origin(origins),
            Middleware(KeyCheck, keys=keys, message=refusal, open_paths=open_paths(), is_for_tenants=is_for_tenants),
            Middleware(QueueLimit, limit=queue),
            Middleware(RoutingMiddleware, state=state),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    # A redirect would go to whatever host the client's request names.
    app.router.redirect_slashes = False
    app.state.decoder = decoder
    return app


class QueueLimit:
    """Pure ASGI middleware: at most `limit` requests are answered or wait; more get a 429 before anything is routed."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self._limit = limit
        self._present = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self._present >= self._limit:
            message = f"the queue is full ({self._limit} requests): try again later"
            refusal = error_response(429, message, headers={"retry-after": str(RETRY_AFTER_S)})
            await refusal(scope, receive, send)
            return
        self._present += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._present -= 1


@dataclass(frozen=True)
class _Endpoints:
    """What the server answers itself."""

    decoder: Decoder
    tokenizer: PromptTokenizer
    state: ServerState
    loader: EmbeddedLoader
    context: Context
    registry_health: RegistryHealth
    readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_READERS, thread_name_prefix="traitroute-reader")
    )
    started: int = field(default_factory=lambda: int(time.time()))

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        asked, prompt = await self._in_reader(self._read_chat, _body(request))
        return await self._answer(request, "chat", asked, prompt)

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        asked, prompt = await self._in_reader(self._read_completion, _body(request))
        return await self._answer(request, "completion", asked, prompt)

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{name}."""
        return model_response(request.path_params["name"], self._cards(request))

    async def models(self, request: Request) -> Response:
        """GET /v1/models: what may be asked for."""
        return JSONResponse({"object": "list", "data": self._cards(request)})

    def _cards(self, request: Request) -> list[dict[str, Any]]:
        base, *aliases = self.state.base_names
        adapters = self.state.seen_by(tenant_of(request.scope)).adapters
        names = [base, *aliases, AUTO, *sorted(adapters)]
        return [
            {
                "id": name,
                "object": "model",
                "created": self.started,
                "owned_by": "traitroute",
                "root": served.weights_digest if (served := self.loader.adapter(name)) else None,
                "parent": base if name in adapters else None,
                "max_model_len": self.context.tokens,
            }
            for name in names
        ]

    async def health(self, request: Request) -> Response:
        """GET /health: well while it can answer, even from what it read before its registry went away."""
        alive = self.decoder.alive
        body = {"status": "ok" if alive else "the model has failed", "registry": self.registry_health.report()}
        return JSONResponse(body, status_code=200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: Prometheus metrics of routing, and how full the batch is."""
        counts = {"rows": self.decoder.rows, "waiting": self.decoder.waiting}
        return metrics_page(*(Reading(f"traitroute_embedded_{k}", f"Requests: {k}.", n) for k, n in counts.items()))

    async def _answer(
        self, request: Request, kind: Kind, asked: ChatRequest | CompletionRequest, prompt: list[int]
    ) -> Response:
        name, adapter = self._served(asked.model)
        generation = self.decoder.submit(
            GenerationRequest(
                prompt=prompt,
                adapter=adapter,
                max_tokens=self._room(prompt, asked.limit),
                temperature=asked.temperature,
                top_p=asked.top_p,
                seed=asked.seed,
                stops=asked.stop,
                ignore_eos=asked.ignore_eos,
            )
        )
        form, chunks = AnswerForm(kind, name, len(prompt)), aiter(generation)
        try:
            # Until there is a first chunk, an error can still be reported in the status.
            with until_disconnect(generation, request.receive):
                first = await anext(chunks)
                if not asked.stream:
                    return await form.whole(first, chunks)
        except GenerationError as exc:
            status = _CLOSED_BY_CLIENT if generation.aborted else 503
            return error_response(status, str(exc))
        except BaseException:
            generation.abort()
            raise
        return EventStream(form, generation, first, chunks, counted=asked.stream_options.include_usage)

    def _served(self, model: str) -> tuple[str, Adapter | None]:
        """The model name of the answer, and its adapter."""
        if model in self.state.base_names:
            return self.state.base_names[0], None
        if (adapter := self.loader.adapter(model)) is not None:
            return model, adapter
        raise HTTPException(404, f"the model {reprlib.repr(model)} does not exist: see /v1/models")

    def _room(self, prompt: list[int], limit: int | None) -> int:
        room = self.context.tokens - len(prompt)
        if room < (limit or 1):
            raise RefusedError(
                f"{len(prompt)} prompt tokens and {limit or 1} to generate are more than this "
                f"server's context of {self.context.tokens}"
            )
        return limit or room

    async def _in_reader(self, read: Callable[[Any], T], body: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.readers, read, body)

    def _read_chat(self, body: Any) -> tuple[ChatRequest, list[int]]:
        asked = read_chat(body, self.context)
        try:
            ids = self.tokenizer.prompt(asked.messages)
        except InputError as exc:
            refused = f"the model's chat template refuses the messages: {exc.__cause__}"
            raise RefusedError(refused, param="messages") from exc
        return asked, self._checked(ids, "messages")

    def _read_completion(self, body: Any) -> tuple[CompletionRequest, list[int]]:
        asked = read_completion(body, self.context)
        given = asked.prompt
        ids = self.tokenizer.tokenizer(given)["input_ids"] if isinstance(given, str) else given
        return asked, self._checked(ids, "prompt")

    def _checked(self, ids: list[int], param: str) -> list[int]:
        size = self.decoder.vocabulary
        if not ids:
            raise RefusedError("the prompt is empty: there is nothing to continue", param=param)
        if wrong := [i for i in ids if not 0 <= i < size]:
            raise RefusedError(f"the model has no token {wrong[0]}, only {size}", param=param)
        return ids


def _body(request: Request) -> dict[str, Any]:
    body = request.scope.get(REQUEST)
    if body is None:
        raise RefusedError("the body must be a JSON object")
    return body
