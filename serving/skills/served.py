"""Skills as a running server answers them: from its newest snapshot, computed off the event loop, within a time."""

from collections.abc import Callable
from typing import TypeVar

from ..http.paging import Page
from ..state import ServerState
from ..timeouts import SaturatedError, TimeBudget
from .models import (
    Matrix,
    Plan,
    PlanRequest,
    Selection,
    SelectRequest,
    SkillCard,
    SkillList,
    TraitMap,
)
from .skills import Skills
from .snapshot import Snapshot

T = TypeVar("T")

SECONDS = 2.0
"""What a piece of work may take, waiting for a thread included; an agent waits longer than a request for tokens."""


class UnavailableError(Exception):
    """Nothing can be answered now."""


class ServedSkills:
    """What HTTP and MCP alike ask; each answer raises as `Skills` does, and UnavailableError."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def select(self, asked: SelectRequest) -> Selection:
        """Rank the skills for a sub-task."""
        skills = self._skills()
        return await self.run(lambda: skills.select(asked))

    async def plan(self, asked: PlanRequest) -> Plan:
        """Assign skills to the steps of a plan."""
        skills = self._skills()
        # A step a turn, so that requests for tokens are routed between the steps of a long plan.
        weighed = [
            await self.run(lambda step=step, i=i: skills.weigh(step, f"steps.{i}"))
            for i, step in enumerate(asked.steps)
        ]
        return await self.run(lambda: skills.assigned(weighed, asked.max_loss))

    async def cards(self, page: Page) -> SkillList:
        """Skills in short."""
        skills = self._skills()
        return await self.run(lambda: skills.cards(page))

    async def card(self, name: str) -> SkillCard:
        """All that is known of one skill."""
        skills = self._skills()
        return await self.run(lambda: skills.card(name))

    async def traits(self, page: Page) -> TraitMap:
        """The traits, and where each skill lies."""
        skills = self._skills()
        return await self.run(lambda: skills.traits(page))

    async def matrix(self, page: Page) -> Matrix:
        """The transfer matrix."""
        skills = self._skills()
        return await self.run(lambda: skills.matrix(page))

    def snapshot(self) -> Snapshot:
        """What the answers come from now.

        Raises:
            UnavailableError: there is no profile, or one that is too old.
        """
        snapshot = self._state.snapshot
        if snapshot is None:
            why = self._state.no_router or "the newest profile is too old to tell of skills"
            raise UnavailableError(why)
        return snapshot

    async def run(self, work: Callable[[], T]) -> T:
        """Compute among the decisions of routing.

        Raises:
            UnavailableError: it took too long.
        """
        return await within(self._state.budget, work, SECONDS)

    def _skills(self) -> Skills:
        return Skills(self.snapshot(), loaded=self._state.loaded)


async def within(budget: TimeBudget, work: Callable[[], T], seconds: float) -> T:
    """What `work` returns, computed in `budget`'s threads.

    Raises:
        UnavailableError: it took longer than `seconds`, or was not begun.
    """
    try:
        return await budget.run(work, seconds)
    except (TimeoutError, SaturatedError) as exc:
        raise UnavailableError("the server is busy: try again in a second") from exc
