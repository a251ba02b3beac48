"""What `traitroute lift`, `GET /v1/lift` and the page say of the gain of `auto` over base."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ...adapters import FeedbackSource
from .conversations import Conversations, Loudest
from .outcomes import Reported
from .sequence import Sums, Values

ALPHA = 0.05
POINT = 0.01
_POWER = 0.8416
"""The normal quantile of 80%."""
_DAY_S = 24 * 3600.0
_NEVER = 1e4
"""Times the traffic so far, beyond which a gain counts as never shown."""

Verdict = Literal["better", "worse", "not known"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Estimate(_Answer):
    """A gain over base in score points, and its 95% confidence sequence, which holds at every look at once."""

    gain: float = Field(description="The gain of `auto` over base on the mean conversation, from -1 to 1.")
    low: float = Field(description="Lower bound.")
    high: float = Field(description="Upper bound.")


class Lift(_Answer):
    """What is known of some conversations: all of them, those of a kind, or those in which an adapter was chosen."""

    name: str | None = Field(description="The kind of request or adapter; null for all, and for what is like no task.")
    tasks: tuple[str, ...] = Field(default=(), description="The profiled tasks of a kind, where they are several.")
    conversations: int = Field(description="Conversations with an outcome.")
    chosen: int = Field(description="Those for which `auto` chooses an adapter; in the others the gain is 0.")
    control: int = Field(description="Those among these that base answered instead.")
    reward_auto: float | None = Field(description="Mean reward that `auto` gets, by self-normalised weights.")
    reward_base: float | None = Field(description="Mean reward that base gets, by self-normalised weights.")
    estimate: Estimate | None = Field(
        description="The doubly robust estimate; null where base or `auto` never answered."
    )
    weighted: Estimate | None = Field(description="The inverse-propensity estimate, which uses no prediction.")

    @property
    def verdict(self) -> Verdict:
        """Whether the interval leaves a doubt."""
        if self.estimate is None or self.estimate.low <= 0 <= self.estimate.high:
            return "not known"
        return "better" if self.estimate.low > 0 else "worse"


class LiftDay(_Answer):
    """One day (UTC) of conversations, and what was known at its end."""

    day: str = Field(description="The date, in ISO 8601.")
    conversations: int = Field(description="Conversations that came to count on this day.")
    gain: float = Field(description="The doubly robust estimate of this day alone.")
    so_far: Estimate = Field(description="The estimate of all days up to this one.")


class Planning(_Answer):
    """How small a gain can be seen."""

    detectable: float = Field(description="The gain that outcomes like these show in four cases of five.")
    days_for_a_point: float | None = Field(
        description="Days of today's traffic until a gain of 0.01 shows in four cases of five; null: years."
    )


class LiftReport(_Answer):
    """The gain of `auto` over base, from the conversations that were held back; intervals hold at every look."""

    source: FeedbackSource = Field(description="Whose outcomes these are.")
    since: datetime | None = Field(description="Decisions from here on are counted; null: all.")
    until: datetime = Field(description="When this was computed.")
    outcomes: int = Field(description="Outcomes of the experiment.")
    outside: int = Field(description="Outcomes of decisions that were not drawn for the experiment.")
    settling: int = Field(description="Conversations whose first outcome is less than an hour old.")
    holdback: float | None = Field(description="The share of conversations that is held back.")
    total: Lift = Field(description="All conversations.")
    kinds: tuple[Lift, ...] = Field(description="By kind of request; intervals hold for all kinds at once.")
    adapters: tuple[Lift, ...] = Field(description="By the adapter chosen; intervals hold for all at once.")
    days: tuple[LiftDay, ...] = Field(description="Over time.")
    planning: Planning | None = Field(description="How small a gain can be seen; null before there is an estimate.")
    notes: tuple[str, ...] = Field(description="What is missing or doubtful, and the cure.")

    @classmethod
    def of(cls, reported: Reported, now: datetime) -> Self:
        """Compare `auto` with base on what was reported."""
        talks = Conversations.of(reported.outcomes, now)
        compared = _Compared(talks)
        names = np.array([reported.kind_of.get(task, task) for task in talks.kind], object)
        kinds = compared.by(names, np.ones(len(talks), bool), reported.kinds)
        return cls(
            source=reported.source,
            since=reported.since,
            until=now,
            outcomes=len(reported.outcomes),
            outside=reported.outside,
            settling=talks.settling,
            holdback=talks.holdback,
            total=compared.lift(None, np.ones(len(talks), bool), ALPHA),
            kinds=tuple(_with_tasks(kind, reported) for kind in kinds),
            adapters=compared.by(talks.policy, talks.chosen, reported.adapters),
            days=compared.days(),
            planning=compared.planning(),
            notes=tuple(_notes(reported, talks, Loudest.of(reported.outcomes, now))),
        )


class _Compared:
    """The estimates of some conversations."""

    def __init__(self, talks: Conversations) -> None:
        self._talks = talks
        self._robust = talks.doubly_robust() if talks.is_compared else None
        self._weighted = talks.inverse_propensity() if talks.is_compared else None

    def lift(self, name: str | None, rows: NDArray[np.bool_], alpha: float) -> Lift:
        """What is known of some rows (n,)."""
        talks = self._talks[rows]
        return Lift(
            name=name,
            conversations=len(talks),
            chosen=int(talks.chosen.sum()),
            control=int(talks.control.sum()),
            reward_auto=talks.mean_reward(talks.auto),
            reward_base=talks.mean_reward(talks.base),
            estimate=_estimate(self._robust, talks, rows, alpha),
            weighted=_estimate(self._weighted, talks, rows, alpha),
        )

    def by(self, names: NDArray[np.object_], rows: NDArray[np.bool_], possible: int) -> tuple[Lift, ...]:
        """The same of each name among the `rows` (n,), most frequent first.

        Every interval has its part of the 5%, so that they hold for all `possible` names at once.
        """
        present = dict.fromkeys(names[rows].tolist())
        alpha = ALPHA / max(possible, len(present), 1)
        lifts = (self.lift(name, rows & np.equal(names, name).astype(bool), alpha) for name in present)
        return tuple(sorted(lifts, key=lambda lift: -lift.conversations))

    def days(self) -> tuple[LiftDay, ...]:
        """The estimates by day (UTC)."""
        if self._robust is None:
            return ()
        number = self._talks.known // _DAY_S
        days, first, counts = np.unique(number, return_index=True, return_counts=True)
        ends = first + counts
        sums = self._robust.sums(ends)
        low, high = np.clip([sums.low(ALPHA / 2), sums.high(ALPHA / 2)], -1, 1)
        means = np.add.reduceat(self._robust.values, first) / counts
        # No estimate is one before somebody was held back.
        begun = ends > int(np.flatnonzero(self._talks.control)[0])
        return tuple(
            LiftDay(
                day=datetime.fromtimestamp(float(days[i]) * _DAY_S, UTC).date().isoformat(),
                conversations=int(counts[i]),
                gain=float(means[i]),
                so_far=Estimate(gain=float(sums.mean[i]), low=float(low[i]), high=float(high[i])),
            )
            for i in np.flatnonzero(begun)
        )

    def planning(self) -> Planning | None:
        """How small a gain can be seen with as many outcomes, and how long one of a point takes."""
        if self._robust is None:
            return None
        sums, spread = self._robust.sums(), float(np.std(self._robust.values - self._robust.predictions))
        known = self._talks.known
        span = max(float(known[-1] - known[0]), 3600.0) / _DAY_S
        factors = np.geomspace(1e-2, _NEVER, 200)
        enough = [factor for factor in factors if _seen(sums.scaled(factor), spread) <= POINT]
        return Planning(detectable=_seen(sums, spread), days_for_a_point=float(enough[0] * span) if enough else None)


def _with_tasks(kind: Lift, reported: Reported) -> Lift:
    tasks = tuple(task for task, name in reported.kind_of.items() if name == kind.name)
    return kind.model_copy(update={"tasks": tasks if len(tasks) > 1 else ()})


def _seen(sums: Sums, spread: float) -> float:
    """The least gain that is seen in four cases of five."""
    half = float(sums.high(ALPHA / 2) - sums.low(ALPHA / 2)) / 2
    return half + _POWER * spread / float(np.sqrt(sums.count))


def _estimate(values: Values | None, talks: Conversations, rows: NDArray[np.bool_], alpha: float) -> Estimate | None:
    if values is None or not talks.is_compared:
        return None
    interval = values[rows].sums().interval(alpha)
    return Estimate(gain=interval.mean, low=interval.low, high=interval.high)


def _notes(reported: Reported, talks: Conversations, loudest: Loudest | None) -> Sequence[str]:
    """What is missing or doubtful, and the cure."""
    asked = reported.source.value
    if not reported.outcomes and not reported.outside:
        return [
            f"no outcome of source {asked!r} was reported: send POST /v1/feedback with the token that an answer "
            "carries in x-traitroute-decision-token, and a reward from 0 to 1"
        ]
    if not reported.outcomes:
        return [
            f"{reported.outside} outcomes were reported, but no conversation was drawn: set TRAITROUTE_HOLDBACK=0.02 "
            "where servers start, so that base answers 2% of the conversations with auto"
        ]
    loud = loudest and str(loudest)
    return [note for note in (_cut(reported), _undrawn(reported), _one_sided(talks), _uneven(talks), loud) if note]


def _cut(reported: Reported) -> str | None:
    if not reported.cut:
        return None
    return (
        "only the newest outcomes were read, so the start moves and the intervals do not hold at every look; the "
        "command traitroute lift reads all"
    )


def _undrawn(reported: Reported) -> str | None:
    if not reported.undrawn:
        return None
    return (
        f"{reported.undrawn} outcomes are of adapters that auto chose where nothing was drawn, and are left out, while "
        "those of base are not, so the gain of all is not that of your traffic: set TRAITROUTE_HOLDBACK alike for "
        "every server and tenant, or give --since"
    )


def _one_sided(talks: Conversations) -> str | None:
    if not len(talks):
        return "the first outcomes are less than an hour old, and count when they are an hour old"
    if not talks.chosen.any():
        return f"auto chooses base in all {len(talks)} conversations, so there is nothing to compare"
    if not talks.control.any():
        return f"{int(talks.chosen.sum())} conversations with an adapter, and none held back that has an outcome yet"
    if not talks.is_compared:
        return f"{int(talks.control.sum())} conversations held back, and no other has an outcome yet"
    return None


def _uneven(talks: Conversations) -> str | None:
    """Whether outcomes are reported more often, or less, of who was held back than of the others."""
    drawn, chosen = talks.holdback, talks.chosen
    if drawn is None or not talks.is_compared:
        return None
    flags = talks.control[chosen].astype(np.float64)
    ones = np.ones(len(flags))
    share = Values(flags, drawn * ones, drawn * ones, (1 - drawn) * ones, 1.0).sums().interval(ALPHA, least=0.0)
    if share.low <= drawn <= share.high:
        return None
    return (
        f"{share.mean:.1%} of the conversations with an outcome were held back, where {drawn:.1%} were drawn: outcomes "
        "are reported more often of one side, and the gain is that of those who report"
    )
