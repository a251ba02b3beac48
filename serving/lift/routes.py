"""`GET /v1/lift` and `GET /v1/canaries`: the gain of `auto` over base, and of canaries over who would have answered."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from ...adapters import CanaryStep, DatabaseError, FeedbackSource, Location, Registry, RegistryError
from ..http.errors import UnavailableError
from ..http.models import read_model
from ..http.openapi import Operation
from ..skills.skills import within
from ..state import ServerState
from ..timeouts import TimeBudget
from .canary import CanaryFigures, read_figures
from .outcomes import read_outcomes
from .report import LiftReport

MOST = 20_000
"""How many outcomes a server reads, the newest; they take a second of one core."""
STEPS = 20
"""How many steps of canaries are told, the newest."""
FRESH_S = 60.0
"""For how long an answer is given again."""
SECONDS = 30.0
_logger = logging.getLogger(__name__)
T = TypeVar("T")


class LiftQuery(BaseModel):
    """Whose outcomes to compare by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: FeedbackSource = Field(default=FeedbackSource.USER, description="Whose outcomes to compare by.")


class CanaryList(BaseModel):
    """The adapters that get a share of what they would win, by name, and the newest steps of all that ever did."""

    model_config = ConfigDict(frozen=True)

    object: Literal["list"] = "list"
    data: tuple[CanaryFigures, ...]
    steps: tuple[CanaryStep, ...] = Field(description="The newest step last.")


@dataclass
class _Computing:
    """Answers of what is computed from a registry: one at a time, and each is given again for a while."""

    state: ServerState
    # A thread of its own, so that no routing waits for it.
    budget: TimeBudget = field(default_factory=lambda: TimeBudget(workers=1))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    kept: dict[tuple[str, FeedbackSource], tuple[float, Any]] = field(default_factory=dict)

    async def answer(self, what: str, source: FeedbackSource, compute: Callable[[Registry], T]) -> T:
        """What `compute` gives for the question `what` of a source, or gave within the last minute."""
        async with self.lock:
            computed, answer = self.kept.get((what, source), (float("-inf"), None))
            if time.monotonic() - computed >= FRESH_S:
                location = self.state.snapshot.location
                if location is None:
                    raise UnavailableError("the registry was not read yet, so its outcomes are not known")
                answer = await within(self.budget, lambda: _computed(location, compute), SECONDS)
                self.kept[what, source] = (time.monotonic(), answer)
        return answer


def lift_operations(state: ServerState) -> list[Operation]:
    """`GET /v1/lift` and `GET /v1/canaries`, of the registry of `state`: computed once a minute at most."""
    computing = _Computing(state)

    async def lift(request: Request) -> LiftReport:
        source = read_model(dict(request.query_params), LiftQuery).source
        return await computing.answer("lift", source, lambda registry: _lift(registry, source))

    async def canaries(request: Request) -> CanaryList:
        source = read_model(dict(request.query_params), LiftQuery).source
        return await computing.answer("canaries", source, lambda registry: _canaries(registry, source))

    return [
        Operation("GET", "/v1/lift", lift, LiftReport, query=LiftQuery),
        Operation("GET", "/v1/canaries", canaries, CanaryList, query=LiftQuery),
    ]


def _lift(registry: Registry, source: FeedbackSource) -> LiftReport:
    return LiftReport.of(read_outcomes(registry, source=source, most=MOST), datetime.now(UTC))


def _canaries(registry: Registry, source: FeedbackSource) -> CanaryList:
    now = datetime.now(UTC)
    figures = [read_figures(registry, each, now, source=source, most=MOST) for each in registry.canaries()]
    return CanaryList(data=tuple(figures), steps=tuple(registry.canary_steps(newest=STEPS)))


def _computed(location: Location, compute: Callable[[Registry], T]) -> T:
    """Read the registry through a connection of its own, and compute; blocks."""
    try:
        with Registry.open(location, read_only=True) as registry:
            return compute(registry)
    except (DatabaseError, RegistryError) as exc:
        _logger.warning("traitroute: no lift: %s", exc)
        raise UnavailableError("the registry cannot be read now: try again later") from exc
