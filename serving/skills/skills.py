"""Skills: rank adapters for a sub-task, assign them to the steps of a plan, describe them.

`Skills` computes and blocks; commands call it as it is. `ServedSkills` does the same off a server's event loop, for
HTTP and MCP.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...adapters import InputError
from ...adapters.errors import did_you_mean
from ...router import Affinity, RoutingDecision, request_text
from ..http.errors import RefusedError, UnavailableError
from ..http.models import FIRST, Page
from ..http.tenants import OPERATOR, Tenant
from ..profile_snapshot import ProfileSnapshot
from ..proof import Proof
from ..state import BASE, ServerState
from ..timeouts import SaturatedError, TimeBudget
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
from .traits import trait_map

PLANNED = 10
"""How many of its best skills are considered for each step of a plan."""
SECONDS = 2.0
"""The time limit of one computation, waiting for a thread included; an agent waits longer than a routed request."""

T = TypeVar("T")


@dataclass(frozen=True)
class Weighed:
    """A sub-task, and the router's decision on it."""

    request: SelectRequest
    decision: RoutingDecision

    @property
    def losses(self) -> dict[str, float]:
        """The loss of predicted gain against the choice, for base and each skill that is sure enough to help."""
        decision, limit = self.decision, self.request.constraints.min_gain or 0.0
        # The choice is sure by what was predicted, which may be more than is told.
        sure = {a.adapter: a.gain for a in decision.ranking[:PLANNED] if a.gain - decision.caution > limit}
        sure |= {decision.adapter: decision.gain} if decision.adapter else {}
        return {skill: max(decision.gain - gain, 0.0) for skill, gain in (sure | {BASE: 0.0}).items()}


class Skills:
    """The skills of one `snapshot`.

    `loaded` says whether the server has an adapter loaded (None: not known), `proof` whether it is known to apply it.
    """

    def __init__(
        self,
        snapshot: ProfileSnapshot,
        *,
        loaded: Callable[[str], bool | None] = lambda _: None,
        proof: Callable[[str], Proof | None] = lambda _: None,
    ) -> None:
        self.snapshot = snapshot
        self._loaded, self._proof = loaded, proof

    def select(self, request: SelectRequest) -> Selection:
        """Rank the skills for a sub-task.

        Raises:
            RefusedError: the messages are malformed, the text is too long, or a constraint names no skill.
        """
        return self._selection(self.weigh(request))

    def plan(self, request: PlanRequest) -> Plan:
        """Select a skill for every step, and assign skills with as few changes as the loss allows.

        Raises:
            RefusedError: as for `select`; the message names the step.
        """
        weighed = [self.weigh(step, f"steps.{i}") for i, step in enumerate(request.steps)]
        return self.assigned(weighed, request.max_loss)

    def weigh(self, request: SelectRequest, where: str = "") -> Weighed:
        """Route a sub-task; `where` is the part of the body that holds it."""
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
        """The plan for steps that were weighed."""
        assignment = assign([step.losses for step in weighed], max_loss)
        steps = tuple(self._planned(step, skill) for step, skill in zip(weighed, assignment.skills, strict=True))
        return Plan(
            steps=steps,
            switches=assignment.switches,
            unplanned_switches=switches([w.decision.adapter or BASE for w in weighed]),
            loss=assignment.loss,
            max_loss=max_loss,
            profile_version=self.snapshot.version,
        )

    def cards(self, page: Page = FIRST) -> SkillList:
        """A page of the skills, by name."""
        adapters = self.snapshot.adapters
        names = sorted(adapters)
        rows, after = page.of_sorted(names)
        return SkillList(
            base_model=self.snapshot.base_model,
            profile_version=self.snapshot.version,
            skills=tuple(
                skill_summary(self.snapshot, adapters[name], self._loaded(name), self._proof(name))
                for name in names[rows]
            ),
            next=after,
        )

    def card(self, name: str) -> SkillCard:
        """Describe one skill.

        Raises:
            RefusedError: no skill has this name.
        """
        adapter = self.snapshot.adapters.get(name)
        if adapter is None:
            known = did_you_mean(name, self.snapshot.adapters)
            raise RefusedError(f"there is no skill {name[:64]!r} here{known}", status=404)
        return skill_card(self.snapshot, adapter, self._loaded(name), self._proof(name))

    def traits(self, page: Page = FIRST) -> TraitMap:
        """The traits, and where each skill lies.

        Raises:
            RefusedError: `after` is no skill of the matrix.
        """
        return trait_map(self.snapshot, page)

    def matrix(self, page: Page = FIRST) -> Matrix:
        """The transfer matrix with its intervals.

        Raises:
            RefusedError: `after` is no row.
        """
        measured = self.snapshot.measured
        rows, after = page.of(measured.adapters)
        return Matrix(
            profile_version=self.snapshot.version,
            tasks=measured.tasks,
            scored_by=measured.scored_by,
            skills=measured.adapters[rows],
            base=tuple(measured.base.tolist()),
            scores=_rows(measured.scores[rows]),
            gains=_rows(measured.gains[rows]),
            low=_rows(measured.low[rows]),
            high=_rows(measured.high[rows]),
            examples=_rows(measured.examples[rows]),
            next=after,
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
            decision=self.snapshot.token(decision, decision.adapter, decision.gain) if signed else None,
        )

    def _ranking(self, decision: RoutingDecision, k: int) -> tuple[RankedSkill, ...]:
        """The best `k` skills, and base at its gain of 0."""
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
        traits = self.snapshot.traits
        return tuple(
            DemandedTrait(index=i + 1, name=traits.name(i), demand=demand, trait=traits.is_trait(i))
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


class ServedSkills:
    """The skills of a server's newest snapshot, computed in the threads of its routing, within a time limit.

    They are those that `tenant` may use.
    """

    def __init__(self, state: ServerState, tenant: Tenant = OPERATOR) -> None:
        self._state = state
        self._tenant = tenant

    async def ask(self, question: Callable[[Skills], T]) -> T:
        """Answer one question.

        Raises:
            RefusedError: as the question of `Skills` does.
            UnavailableError: there is no profile, or the server is too busy.
        """
        skills = self._skills()
        return await self.run(lambda: question(skills))

    async def plan(self, request: PlanRequest) -> Plan:
        """Assign skills to the steps of a plan; raises as `ask` does."""
        skills = self._skills()
        # One step at a time, so that other requests are routed between the steps of a long plan.
        weighed = [
            await self.run(lambda step=step, i=i: skills.weigh(step, f"steps.{i}"))
            for i, step in enumerate(request.steps)
        ]
        return await self.run(lambda: skills.assigned(weighed, request.max_loss))

    def snapshot(self) -> ProfileSnapshot:
        """The newest snapshot.

        Raises:
            UnavailableError: there is no profile, or one that is too old.
        """
        snapshot = self._state.seen_by(self._tenant)
        if snapshot.skills is None:
            raise UnavailableError(snapshot.no_router or "the newest profile is too old to describe skills")
        return snapshot.skills

    async def run(self, work: Callable[[], T]) -> T:
        """Compute in the threads of routing.

        Raises:
            UnavailableError: it took too long.
        """
        return await within(self._state.budget, work, SECONDS)

    def _skills(self) -> Skills:
        return Skills(self.snapshot(), loaded=self._state.loaded, proof=self._state.proof)


async def within(budget: TimeBudget, work: Callable[[], T], seconds: float) -> T:
    """What `work` returns, computed in `budget`'s threads.

    Raises:
        UnavailableError: it took longer than `seconds`, or was not begun.
    """
    try:
        return await budget.run(work, seconds)
    except (TimeoutError, SaturatedError) as exc:
        raise UnavailableError("the server is busy: try again in a second") from exc


@dataclass(frozen=True)
class Assignment:
    """The skill of each step, the number of changes between them, and the gain given up in all."""

    skills: tuple[str, ...]
    switches: int
    loss: float


def assign(losses: Sequence[Mapping[str, float]], max_loss: float) -> Assignment:
    """Assign to each step one of the skills in its `losses`, of which at least one has loss 0.

    An exact dynamic programme over (changes so far, skill of the last step): of all assignments within `max_loss` it
    finds one with the fewest changes, and of those with as few the one of least loss. Any change of the model counts,
    to and from the base model included, since each loses the prefix cache.
    """
    skills = list(dict.fromkeys(skill for step in losses for skill in step))
    costs = np.array([[step.get(skill, np.inf) for skill in skills] for step in losses])
    layers = [np.cumsum(costs, axis=0)]
    # A sum of floats may exceed its exact value by a rounding error.
    while layers[-1][-1].min() > max_loss + 1e-9 and len(layers) < len(losses):
        layers.append(_with_one_more(layers[-1], costs))
    names = tuple(skills[i] for i in _path(layers))
    return Assignment(names, switches(names), float(layers[-1][-1].min()))


def _with_one_more(layer: NDArray[np.float64], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least loss up to each step, ending in each skill, (steps, skills), with one more change than in `layer`."""
    entered = layer.min(axis=1)
    costs_so_far = np.empty_like(costs)
    costs_so_far[0] = costs[0]
    for t in range(1, len(costs)):
        # From the skill that was best before; if it is the same skill, one change fewer is used, which is as good.
        costs_so_far[t] = np.minimum(costs_so_far[t - 1], entered[t - 1]) + costs[t]
    return costs_so_far


def _path(layers: Sequence[NDArray[np.float64]]) -> list[int]:
    """The skill of each step, read backwards off the layers; layer s allows s changes."""
    left = len(layers) - 1
    path = [int(layers[left][-1].argmin())]
    for t in range(len(layers[0]) - 2, -1, -1):
        if left and layers[left - 1][t].min() < layers[left][t, path[-1]]:
            left -= 1
            path.append(int(layers[left][t].argmin()))
        else:
            path.append(path[-1])
    return path[::-1]


def switches(skills: Sequence[str]) -> int:
    """How often the skill changes from one step to the next."""
    return sum(a != b for a, b in pairwise(skills))


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
    """Rows as tuples, with None for nan, which JSON lacks."""
    return tuple(tuple(None if v != v else v for v in row) for row in values.tolist())
