"""Skills: what an agent may ask of a snapshot of the registry. Free of HTTP; the servers, MCP and commands call it.

Everything here computes and blocks: call it off the event loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ...adapters import InputError
from ...adapters.errors import did_you_mean
from ...router import Affinity, RoutingDecision, request_text
from ..http.errors import RefusedError
from ..http.paging import FIRST, Page
from .assignment import assign, switches
from .card import skill_card, skill_summary
from .models import (
    MOST_CHARACTERS,
    DemandedTrait,
    LikeTask,
    Matrix,
    Plan,
    PlannedStep,
    PlanRequest,
    RankedSkill,
    Selection,
    SelectRequest,
    SkillCard,
    SkillList,
    TraitMap,
)
from .snapshot import Snapshot
from .traits import is_trait, trait_map, trait_name

BASE = "base"
PLANNED = 10
"""Of each step so many of the best skills are considered for a plan."""


@dataclass(frozen=True)
class Weighed:
    """A sub-task, and what the router says of it."""

    request: SelectRequest
    decision: RoutingDecision

    @property
    def losses(self) -> dict[str, float]:
        """The predicted gain that each skill sure enough to help, or base, gives up against the choice."""
        decision, limit = self.decision, self.request.constraints.min_gain or 0.0
        sure = {a.adapter: a.gain for a in decision.ranking[:PLANNED] if a.low > limit}
        return {skill: max(decision.gain - gain, 0.0) for skill, gain in (sure | {BASE: 0.0}).items()}


class Skills:
    """Answers from one `snapshot`; `loaded` says whether the server has an adapter loaded (None: not known)."""

    def __init__(self, snapshot: Snapshot, *, loaded: Callable[[str], bool | None] = lambda _: None) -> None:
        self.snapshot = snapshot
        self._loaded = loaded

    def select(self, request: SelectRequest) -> Selection:
        """Rank the skills for a sub-task.

        Raises:
            RefusedError: the messages are malformed, the text is too long, or a constraint names no skill.
        """
        return self._selection(self.weigh(request))

    def plan(self, request: PlanRequest) -> Plan:
        """Select a skill for every step, and assign skills with as few changes as the stated loss allows.

        Raises:
            RefusedError: as for `select`; the message names the step.
        """
        weighed = [self.weigh(step, f"steps.{i}") for i, step in enumerate(request.steps)]
        return self.assigned(weighed, request.max_loss)

    def weigh(self, request: SelectRequest, where: str = "") -> Weighed:
        """Ask the router about a sub-task; `where` is the part of the body that holds it."""
        limits, adapters = request.constraints, self.snapshot.adapters
        text = _text(request, where)
        limits.check_names(adapters, part=_part(where, "constraints."))
        options: dict[str, Any] = {"ranked": max(request.k, PLANNED)}
        if limits.limits_adapters:
            options["among"] = limits.among(adapters, lambda name: adapters[name].tags)
        if limits.min_gain is not None:
            options["least_gain"] = limits.min_gain
        return Weighed(request, self.snapshot.router.route(text, **options))

    def assigned(self, weighed: Sequence[Weighed], max_loss: float) -> Plan:
        """The plan of steps that were weighed."""
        found = assign([step.losses for step in weighed], max_loss)
        steps = tuple(self._planned(step, skill) for step, skill in zip(weighed, found.skills, strict=True))
        return Plan(
            steps=steps,
            switches=found.switches,
            unplanned_switches=switches([w.decision.adapter or BASE for w in weighed]),
            loss=found.loss,
            max_loss=max_loss,
            profile_version=self.snapshot.version,
        )

    def cards(self, page: Page = FIRST) -> SkillList:
        """Skills in short, by name."""
        adapters = self.snapshot.adapters
        names = sorted(adapters)
        rows, following = page.of_sorted(names)
        return SkillList(
            base_model=self.snapshot.summary["base_model"],
            profile_version=self.snapshot.version,
            skills=tuple(skill_summary(self.snapshot, adapters[name], self._loaded(name)) for name in names[rows]),
            next=following,
        )

    def card(self, name: str) -> SkillCard:
        """All that is known of one skill.

        Raises:
            RefusedError: there is none of that name.
        """
        adapter = self.snapshot.adapters.get(name)
        if adapter is None:
            known = did_you_mean(name, self.snapshot.adapters)
            raise RefusedError(f"there is no skill {name[:64]!r} here{known}", status=404)
        return skill_card(self.snapshot, adapter, self._loaded(name))

    def traits(self, page: Page = FIRST) -> TraitMap:
        """The traits, and where each skill lies.

        Raises:
            RefusedError: the page does not go on from a skill of the matrix.
        """
        return trait_map(self.snapshot.summary, self.snapshot.version, page)

    def matrix(self, page: Page = FIRST) -> Matrix:
        """The transfer matrix with its intervals.

        Raises:
            RefusedError: the page does not go on from a row.
        """
        measured = self.snapshot.measured
        rows, following = page.of(measured.adapters)
        return Matrix(
            profile_version=self.snapshot.version,
            tasks=measured.tasks,
            skills=measured.adapters[rows],
            base=tuple(measured.base.tolist()),
            scores=_rows(measured.scores[rows]),
            gains=_rows(measured.gains[rows]),
            low=_rows(measured.low[rows]),
            high=_rows(measured.high[rows]),
            examples=_rows(measured.examples[rows]),
            next=following,
        )

    def _selection(self, weighed: Weighed, *, signed: bool = True) -> Selection:
        decision = weighed.decision
        low, high = decision.interval
        return Selection(
            choice=decision.adapter or BASE,
            gain=decision.gain,
            low=low,
            high=high,
            reason=decision.reason,
            ranking=self._ranking(decision, weighed.request.k),
            demand=self._demand(decision),
            nearest_tasks=tuple(
                LikeTask(task=near.task, similarity=near.similarity) for near in decision.nearest_tasks
            ),
            profile_version=decision.profile_version,
            decision=self._token(decision) if signed else None,
        )

    def _token(self, decision: RoutingDecision) -> str | None:
        return self.snapshot.token(decision, decision.adapter, decision.gain)

    def _ranking(self, decision: RoutingDecision, k: int) -> tuple[RankedSkill, ...]:
        """The best `k` skills, and base where its gain of 0 places it."""
        base = RankedSkill(name=BASE, gain=0.0, low=0.0, high=0.0, loaded=True)
        best = [self._ranked(affinity) for affinity in decision.ranking[:k]]
        return tuple(sorted([*best, base], key=lambda skill: -skill.gain))

    def _ranked(self, affinity: Affinity) -> RankedSkill:
        return RankedSkill(
            name=affinity.adapter,
            gain=affinity.gain,
            low=affinity.low,
            high=affinity.high,
            loaded=self._loaded(affinity.adapter),
            side_effects=self.snapshot.measured.side_effects(affinity.adapter),
        )

    def _demand(self, decision: RoutingDecision) -> tuple[DemandedTrait, ...]:
        summary = self.snapshot.summary
        return tuple(
            DemandedTrait(
                index=i + 1,
                name=trait_name(summary, i),
                demand=demand,
                trait=is_trait(summary, i),
            )
            for i, demand in enumerate(decision.demand.values())
        )

    def _planned(self, weighed: Weighed, skill: str) -> PlannedStep:
        gains = {a.adapter: a.gain for a in weighed.decision.ranking} | {BASE: 0.0}
        adapter = None if skill == BASE else skill
        return PlannedStep(
            selection=self._selection(weighed, signed=False),
            assigned=skill,
            gain=gains[skill],
            loss=weighed.losses[skill],
            decision=self.snapshot.token(weighed.decision, adapter, gains[skill]),
        )


def _text(request: SelectRequest, where: str) -> str:
    if request.task is not None:
        text, part = request.task, _part(where, "task")
    else:
        part = _part(where, "messages")
        try:
            text = request_text(request.model_dump(include={"messages", "tools"}))
        except InputError as exc:
            raise RefusedError(str(exc), param=part) from exc
    if len(text) > MOST_CHARACTERS:
        raise RefusedError(
            f"{part} has {len(text)} characters, more than {MOST_CHARACTERS}: shorten it, for "
            "instance to its instruction and the beginning of its material",
            status=413,
            param=part,
        )
    return text


def _part(where: str, field: str) -> str:
    return f"{where}.{field}" if where else field


def _rows(values: NDArray[Any]) -> tuple[tuple[Any, ...], ...]:
    """Rows as tuples, with None for nan, which JSON has not."""
    return tuple(tuple(None if v != v else v for v in row) for row in values.tolist())
