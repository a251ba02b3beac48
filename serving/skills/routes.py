"""The skills API over HTTP."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from ..http.body import read_body
from ..http.keys import KEY_DIGEST
from ..http.models import Model, Page, read_json, read_page
from ..http.openapi import Operation
from ..http.tenants import tenant_of
from ..state import ServerState
from ..timeouts import TimeBudget
from .feedback import FeedbackLimits, keep_feedback
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
from .skills import ServedSkills, Skills, within

WRITING_SECONDS, WAITING_FEEDBACK = 10.0, 256
"""The time limit of writing feedback, and how many writes may wait."""

Answer = TypeVar("Answer", bound=BaseModel)


def skill_operations(state: ServerState) -> list[Operation]:
    """The operations of the skills API, answered from the snapshot in `state`.

    Raises:
        InputError: the environment's limits of feedback are no numbers.
    """
    limits = FeedbackLimits.from_environment()
    # A thread of its own: a write may wait for other writers, and no routing may wait for that.
    writing = TimeBudget(workers=1, waiting=WAITING_FEEDBACK)

    def skills(request: Request) -> ServedSkills:
        return ServedSkills(state, tenant_of(request.scope))

    async def read(request: Request, model: type[Model]) -> Model:
        body = await read_body(request.receive, request.headers, state.max_body_bytes)
        return await skills(request).run(lambda: read_json(body, model))

    async def select(request: Request) -> Selection:
        task = await read(request, SelectRequest)
        return await skills(request).ask(lambda s: s.select(task))

    async def plan(request: Request) -> Plan:
        return await skills(request).plan(await read(request, PlanRequest))

    async def card(request: Request) -> SkillCard:
        return await skills(request).ask(lambda s: s.card(request.path_params["name"]))

    def listing(question: Callable[[Skills, Page], Answer]) -> Callable[[Request], Awaitable[Answer]]:
        async def page(request: Request) -> Answer:
            page = read_page(request)
            return await skills(request).ask(lambda s: question(s, page))

        return page

    async def feedback(request: Request) -> FeedbackKept:
        given, snapshot = await read(request, FeedbackRequest), skills(request).snapshot()
        may_name = state.seen_by(tenant_of(request.scope)).may_name
        location, newest, reporter = snapshot.location, (snapshot.version, snapshot.key), request.scope.get(KEY_DIGEST)
        return await within(
            writing,
            lambda: keep_feedback(given, location, newest=newest, reporter=reporter, limits=limits, may_name=may_name),
            WRITING_SECONDS,
        )

    return [
        Operation("POST", "/v1/skills/select", select, Selection, body=SelectRequest),
        Operation("POST", "/v1/skills/plan", plan, Plan, body=PlanRequest),
        Operation("GET", "/v1/skills", listing(Skills.cards), SkillList, query=Page),
        Operation("GET", "/v1/skills/{name}", card, SkillCard),
        Operation("GET", "/v1/traits", listing(Skills.traits), TraitMap, query=Page),
        Operation("GET", "/v1/matrix", listing(Skills.matrix), Matrix, query=Page),
        Operation("POST", "/v1/feedback", feedback, FeedbackKept, body=FeedbackRequest),
    ]
