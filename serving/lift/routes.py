"""`GET /v1/lift`: what the page shows of the gain of `auto` over base."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from ...adapters import DatabaseError, FeedbackSource, Location, Registry, RegistryError
from ..http.errors import UnavailableError
from ..http.models import read_model
from ..http.openapi import Operation
from ..skills.skills import within
from ..state import ServerState
from ..timeouts import TimeBudget
from .outcomes import read_outcomes
from .report import LiftReport

MOST = 20_000
"""How many outcomes a server reads, the newest; they take a second of one core."""
FRESH_S = 60.0
"""For how long an answer is given again."""
SECONDS = 30.0
_logger = logging.getLogger(__name__)


class LiftQuery(BaseModel):
    """Whose outcomes to compare by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: FeedbackSource = Field(default=FeedbackSource.USER, description="Whose outcomes to compare by.")


@dataclass
class _Kept:
    """The last answer by source, and when it was computed."""

    answers: dict[FeedbackSource, tuple[float, LiftReport]] = field(default_factory=dict)

    def fresh(self, source: FeedbackSource) -> LiftReport | None:
        computed, report = self.answers.get(source, (-FRESH_S, None))
        return report if time.monotonic() - computed < FRESH_S else None


def lift_operations(state: ServerState) -> list[Operation]:
    """`GET /v1/lift`, of the registry of `state`: computed once a minute at most, one at a time."""
    # A thread of its own, so that no routing waits for it.
    budget, kept, lock = TimeBudget(workers=1), _Kept(), asyncio.Lock()

    async def lift(request: Request) -> LiftReport:
        query = read_model(dict(request.query_params), LiftQuery)
        async with lock:
            if (report := kept.fresh(query.source)) is None:
                location = state.snapshot.location
                if location is None:
                    raise UnavailableError("the registry was not read yet, so its outcomes are not known")
                report = await within(budget, lambda: _computed(location, query.source), SECONDS)
                kept.answers[query.source] = (time.monotonic(), report)
        return report

    return [Operation("GET", "/v1/lift", lift, LiftReport, query=LiftQuery)]


def _computed(location: Location, source: FeedbackSource) -> LiftReport:
    """Read the registry through a connection of its own, and compare; blocks."""
    try:
        with Registry.open(location, read_only=True) as registry:
            reported = read_outcomes(registry, source=source, most=MOST)
    except (DatabaseError, RegistryError) as exc:
        _logger.warning("traitroute: no lift: %s", exc)
        raise UnavailableError("the registry cannot be read now: try again later") from exc
    return LiftReport.of(reported, datetime.now(UTC))
