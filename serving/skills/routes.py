"""The skills API over HTTP: read, check, compute off the event loop, answer."""

import asyncio
import math
from collections.abc import Awaitable, Callable

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...adapters import TooManyError
from ..http.body import read_body
from ..http.errors import RefusedError, error_response
from ..http.keys import KEY_DIGEST
from ..http.openapi import Operation
from ..http.paging import Page
from ..state import ServerState
from ..timeouts import TimeBudget
from .feedback import FeedbackLimits, UnkeptError, keep_feedback
from .models import (
    FeedbackKept,
    FeedbackRequest,
    Matrix,
    Plan,
    PlanRequest,
    Selection,
    SelectRequest,
    SkillCard,
    SkillList,
    TraitMap,
)
from .reading import Asked, read_json, read_page
from .served import ServedSkills, UnavailableError, within

WRITING_SECONDS, WAITING_FEEDBACK = 10.0, 256
"""What writing feedback may take, and how much of it may wait."""

Answer = Callable[[Request], Awaitable[BaseModel]]


def skill_operations(state: ServerState) -> list[Operation]:
    """What the skills API can be asked, answered from the snapshot that `state` has.

    Raises:
        InputError: the environment's limits of feedback are no numbers.
    """
    api = _Api(state, FeedbackLimits.from_environment())
    select, plan, cards, card, traits, matrix, feedback = map(
        _answering,
        (api.select, api.plan, api.cards, api.card, api.traits, api.matrix, api.feedback),
    )
    return [
        Operation("POST", "/v1/skills/select", select, Selection, body=SelectRequest),
        Operation("POST", "/v1/skills/plan", plan, Plan, body=PlanRequest),
        Operation("GET", "/v1/skills", cards, SkillList, query=Page),
        Operation("GET", "/v1/skills/{name}", card, SkillCard),
        Operation("GET", "/v1/traits", traits, TraitMap, query=Page),
        Operation("GET", "/v1/matrix", matrix, Matrix, query=Page),
        Operation("POST", "/v1/feedback", feedback, FeedbackKept, body=FeedbackRequest),
    ]


class _Api:
    """The endpoints, each from a request to a model."""

    def __init__(self, state: ServerState, limits: FeedbackLimits) -> None:
        self._state = state
        self._limits = limits
        self._skills = ServedSkills(state)
        # A thread of its own: a write may wait for other writers, and no routing may wait for that.
        self._writing = TimeBudget(workers=1, waiting=WAITING_FEEDBACK)

    async def select(self, request: Request) -> BaseModel:
        """POST /v1/skills/select."""
        return await self._skills.select(await self._read(request, SelectRequest))

    async def plan(self, request: Request) -> BaseModel:
        """POST /v1/skills/plan."""
        return await self._skills.plan(await self._read(request, PlanRequest))

    async def cards(self, request: Request) -> BaseModel:
        """GET /v1/skills."""
        return await self._skills.cards(read_page(request))

    async def card(self, request: Request) -> BaseModel:
        """GET /v1/skills/{name}."""
        return await self._skills.card(request.path_params["name"])

    async def traits(self, request: Request) -> BaseModel:
        """GET /v1/traits."""
        return await self._skills.traits(read_page(request))

    async def matrix(self, request: Request) -> BaseModel:
        """GET /v1/matrix."""
        return await self._skills.matrix(read_page(request))

    async def feedback(self, request: Request) -> BaseModel:
        """POST /v1/feedback."""
        told, snapshot = await self._read(request, FeedbackRequest), self._skills.snapshot()
        key = request.scope.get(KEY_DIGEST)
        return await within(
            self._writing,
            lambda: keep_feedback(told, snapshot, key=key, limits=self._limits),
            WRITING_SECONDS,
        )

    async def _read(self, request: Request, model: type[Asked]) -> Asked:
        body = await read_body(request.receive, request.headers, self._state.max_body_bytes)
        return await self._skills.run(lambda: read_json(body, model))


def _answering(endpoint: Answer) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint of Starlette's that tells every refusal in one form."""

    async def answer(request: Request) -> Response:
        try:
            found = await endpoint(request)
            text = await asyncio.to_thread(found.model_dump_json)
        except RefusedError as refused:
            return refused.response()
        except TooManyError as exc:
            wait = str(math.ceil(exc.wait_s))
            return error_response(429, str(exc), headers={"retry-after": wait})
        except (UnavailableError, UnkeptError) as exc:
            return error_response(503, str(exc), headers={"retry-after": "1"})
        except ClientDisconnect:
            return Response(status_code=499)
        return Response(text, media_type="application/json")

    return answer
