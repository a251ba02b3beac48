"""The embedded server's application: OpenAI's surface over a `Decoder`, behind the routing that vLLM has too."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from jinja2 import TemplateError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...adapters import Adapter, Registry
from ..contact import RegistryContact
from ..engines.prompts import PromptTokenizer
from ..following import RegistryFollower
from ..keys import ApiKeys, KeyCheck
from ..metrics_page import Reading, metrics_page
from ..origins import cross_origin
from ..own_routes import own_routes
from ..replies import error_reply, model_reply
from ..routing import AUTO, Routing, RoutingMiddleware
from .admission import QueueLimit
from .answers import AnswerForm, Kind
from .decoder import Decoder
from .generation import GenerationError, Order
from .loader import EmbeddedLoader
from .requests import ChatRequest, CompletionRequest, RequestError, read_chat, read_completion
from .streams import EventStream, until_disconnect, whole

ROUTING_BUDGET_S = 0.5
"""More than in front of vLLM: here the router waits for a turn beside the thread that decodes."""
_CLOSED_BY_CLIENT = 499


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
    loader = EmbeddedLoader(decoder, base_digest=base_digest)
    routing = Routing(
        base_names=tuple(names),
        loader=loader,
        loaded=loader.holds,
        budget_s=ROUTING_BUDGET_S,
        origins=origins,
    )
    following = RegistryFollower(routing, open_registry, loader.offer)
    surface = _Surface(decoder, tokenizer, routing, loader, context, following.contact)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        decoder.start()
        await following.start()
        try:
            yield
        finally:
            await following.stop()
            await asyncio.to_thread(decoder.close)

    keys = ApiKeys([api_key or ""])
    refusal = "the API key is missing or wrong"
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", surface.chat, methods=["POST"]),
            Route("/v1/completions", surface.complete, methods=["POST"]),
            Route("/v1/models", surface.models),
            Route("/v1/models/{name:path}", surface.model),
            Route("/health", surface.health),
            Route("/metrics", surface.metrics),
            *own_routes(routing),
        ],
        middleware=[
            *cross_origin(origins),
            Middleware(KeyCheck, keys=keys, message=refusal),
            Middleware(QueueLimit, limit=queue),
            Middleware(RoutingMiddleware, routing=routing),
        ],
        exception_handlers={HTTPException: _http_error, RequestError: _request_error},
        lifespan=lifespan,
    )
    app.state.decoder = decoder
    return app


class _Surface:
    """The endpoints."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: PromptTokenizer,
        routing: Routing,
        loader: EmbeddedLoader,
        context: int,
        contact: RegistryContact,
    ) -> None:
        self._contact = contact
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._routing = routing
        self._loader = loader
        self._context = context
        self._started = int(time.time())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        asked = read_chat(await _json(request))
        messages = [message.plain() for message in asked.messages]
        prompt = await asyncio.to_thread(self._read_messages, messages)
        return await self._answer(request, "chat", asked, prompt)

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        asked = read_completion(await _json(request))
        prompt = await asyncio.to_thread(self._read_prompt, asked.prompt)
        return await self._answer(request, "completion", asked, prompt)

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{name}."""
        return model_reply(request.path_params["name"], self._cards())

    async def models(self, request: Request) -> Response:
        """GET /v1/models: what may be asked for."""
        return JSONResponse({"object": "list", "data": self._cards()})

    def _cards(self) -> list[dict[str, Any]]:
        base, *aliases = self._routing.base_names
        names = [base, *aliases, AUTO, *sorted(self._routing.adapters)]
        return [
            {
                "id": name,
                "object": "model",
                "created": self._started,
                "owned_by": "traitroute",
                "root": served.weights_digest if (served := self._loader.adapter(name)) else None,
                "parent": base if name in self._routing.adapters else None,
                "max_model_len": self._context,
            }
            for name in names
        ]

    async def health(self, request: Request) -> Response:
        """GET /health: well while it can answer, even from what it read before its registry went away."""
        alive = self._decoder.alive
        body = {
            "status": "ok" if alive else "the model has failed",
            "registry": self._contact.report(),
        }
        return JSONResponse(body, status_code=200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: Prometheus metrics of routing, and how full the batch is."""
        counts = {"rows": self._decoder.rows, "waiting": self._decoder.waiting}
        return metrics_page(
            *(Reading(f"traitroute_embedded_{k}", f"Requests: {k}.", n) for k, n in counts.items())
        )

    async def _answer(
        self,
        request: Request,
        kind: Kind,
        asked: ChatRequest | CompletionRequest,
        prompt: list[int],
    ) -> Response:
        name, adapter = self._served(asked.model)
        order = Order(
            prompt=prompt,
            adapter=adapter,
            max_tokens=self._room(prompt, asked.limit),
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=asked.seed,
            stops=asked.stops,
            ignore_eos=asked.ignore_eos,
        )
        form = AnswerForm(kind, name)
        generation = self._decoder.submit(order)
        pieces = aiter(generation)
        try:
            # Until there is a first piece, an error can still be told in the status.
            with until_disconnect(generation, request.receive):
                first = await anext(pieces)
                if not asked.stream:
                    return await whole(form, first, pieces, len(prompt))
        except GenerationError as exc:
            status = _CLOSED_BY_CLIENT if generation.aborted else 503
            return error_reply(status, str(exc))
        except BaseException:
            generation.abort()
            raise
        usage = asked.stream_options.include_usage
        return EventStream(form, generation, first, pieces, counted=usage)

    def _served(self, model: str) -> tuple[str, Adapter | None]:
        """The name that the answer bears, and who gives it."""
        if model in self._routing.base_names:
            return self._routing.base_names[0], None
        if (adapter := self._loader.adapter(model)) is not None:
            return model, adapter
        raise HTTPException(404, f"the model {model!r} does not exist: see /v1/models")

    def _room(self, prompt: list[int], limit: int | None) -> int:
        room = self._context - len(prompt)
        if room < (limit or 1):
            raise RequestError(
                f"{len(prompt)} prompt tokens and {limit or 1} to generate are more than this "
                f"server's context of {self._context}"
            )
        return limit or room

    def _read_messages(self, messages: list[dict[str, str]]) -> list[int]:
        try:
            return self._checked(self._tokenizer.prompt(messages), "messages")
        except TemplateError as exc:
            raise RequestError(
                f"the model's chat template refuses the messages: {exc}", param="messages"
            ) from exc

    def _read_prompt(self, prompt: str | list[int]) -> list[int]:
        ids = self._tokenizer.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
        return self._checked(ids, "prompt")

    def _checked(self, ids: list[int], param: str) -> list[int]:
        size = self._decoder.vocabulary
        if not ids:
            raise RequestError("the prompt is empty: there is nothing to continue", param=param)
        if wrong := [i for i in ids if not 0 <= i < size]:
            raise RequestError(f"the model has no token {wrong[0]}, only {size}", param=param)
        return ids


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except (ValueError, RecursionError) as exc:
        raise RequestError("the body is not JSON") from exc


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return error_reply(exc.status_code, exc.detail)


async def _request_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestError)
    return error_reply(400, str(exc), param=exc.param)
