"""Measured gains with their intervals: paired outcomes of an adapter and the base model on the same examples.

The interval is Bonett and Price's (2012) adjusted Wald interval for paired proportions: one success is added to each
kind of discordance, which keeps its coverage at a few dozen examples, where the plain interval and the bootstrap
shrink to nothing as soon as all examples agree. Where scores lie between 0 and 1 the two that are added differ by as
much as those examples do that differ (their root mean square): 1 where all is right or wrong. Student's interval would
be narrower where every example gains alike, and far too narrow where few differ, or all by one size, as a judge's do.
The row of an adapter that joined later is estimated from a few examples; its interval follows from the standard error
of that estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import norm

from ..adapters import PairedOutcomes, ProfileSummary, RoutingScore

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Z = float(norm.ppf(0.975))
"""Standard errors that an interval of 95% reaches."""


SCORED_BY = (
    "What an example's score is: 1 where the answer is right as asked for (`strict`) or right anywhere (`lenient`), "
    "else 0; or what the task's metric gives, from 0 to 1 (`metric`)."
)


class MeasuredGain(BaseModel):
    """A skill's measured gain on one profiled task."""

    model_config = ConfigDict(frozen=True)

    task: str = Field(description="The profiled task.")
    scored_by: RoutingScore = Field(description=SCORED_BY)
    score: float = Field(description="The skill's mean score over the examples, from 0 to 1.")
    base: float = Field(description="The base model's score on the same examples.")
    gain: float = Field(description="`score` less `base`; negative is a loss.")
    low: float | None = Field(description="Lower end of the gain's 95% interval; null where no interval is known.")
    high: float | None = Field(description="Upper end of the gain's 95% interval; null where no interval is known.")
    examples: int = Field(description="How many examples were measured; the gain may be estimated from a few.")


@dataclass(frozen=True)
class Measured:
    """Mean scores of `adapters` on `tasks`, (a, t), and of base, (t,); `scored_by` (t,) says of what.

    `low` and `high` (a, t) bound the gains in 95% intervals, and are nan where no interval is known.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    scored_by: tuple[RoutingScore, ...]
    base: Array
    scores: Array
    low: Array
    high: Array
    examples: Counts

    @classmethod
    def read(cls, summary: ProfileSummary) -> Self:
        """Read the scores of a profile, and their intervals."""
        paired, estimated = summary.paired, summary.estimated
        examples, gains = paired.examples.copy(), summary.gains
        low, high = paired_interval(gains, paired)
        rows = {name: i for i, name in enumerate(summary.adapters)}
        places = [rows[name] for name in estimated.adapters]
        margin = Z * estimated.errors
        low[places] = np.maximum(gains[places] - margin, -1.0)
        high[places] = np.minimum(gains[places] + margin, 1.0)
        examples[places] = estimated.examples
        return cls(
            adapters=summary.adapters,
            tasks=summary.tasks,
            scored_by=tuple(summary.score_of(task) for task in summary.tasks),
            base=summary.base,
            scores=summary.scores,
            low=low,
            high=high,
            examples=examples,
        )

    @cached_property
    def gains(self) -> Array:
        """Score of each adapter less the base model's, (a, t)."""
        return self.scores - self.base

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {adapter: i for i, adapter in enumerate(self.adapters)}

    def take(self, places: Sequence[int]) -> Self:
        """The scores of some of the adapters, in that order."""
        kept = list(places)
        arrays = {name: getattr(self, name)[kept] for name in ("scores", "low", "high", "examples")}
        return replace(self, adapters=tuple(self.adapters[i] for i in kept), **arrays)

    def row(self, adapter: str) -> tuple[MeasuredGain, ...]:
        """The measured gains of one adapter, in the order of tasks; none where it is in no matrix yet."""
        i = self._rows.get(adapter)
        return () if i is None else tuple(self._gain(i, j) for j in range(len(self.tasks)))

    def side_effects(self, adapter: str) -> tuple[MeasuredGain, ...]:
        """Tasks on which the adapter surely loses, the worst first."""
        if (i := self._rows.get(adapter)) is None:
            return ()
        lost = [self._gain(i, j) for j in np.flatnonzero(self.high[i] < 0).tolist()]
        return tuple(sorted(lost, key=lambda gain: gain.gain))

    def best(self, adapter: str, count: int) -> tuple[MeasuredGain, ...]:
        """Up to `count` tasks on which the adapter surely gains, the best first."""
        if (i := self._rows.get(adapter)) is None:
            return ()
        surely = np.flatnonzero(self.low[i] > 0)
        order = np.argsort(-self.gains[i, surely], kind="stable")[:count]
        return tuple(self._gain(i, j) for j in surely[order].tolist())

    def mean_gain(self, adapter: str) -> float | None:
        """The adapter's mean gain over all tasks; None where it is in no matrix yet."""
        i = self._rows.get(adapter)
        return None if i is None else float(self.gains[i].mean())

    def _gain(self, i: int, j: int) -> MeasuredGain:
        known = not np.isnan(self.low[i, j])
        return MeasuredGain(
            task=self.tasks[j],
            scored_by=self.scored_by[j],
            score=float(self.scores[i, j]),
            base=float(self.base[j]),
            gain=float(self.scores[i, j] - self.base[j]),
            low=float(self.low[i, j]) if known else None,
            high=float(self.high[i, j]) if known else None,
            examples=int(self.examples[i, j]),
        )


def paired_interval(gains: Array, paired: PairedOutcomes, *, tried: int = 1) -> tuple[Array, Array]:
    """The ends of the intervals of `gains` (adapters, tasks), each a mean difference; nan where none was measured.

    They allow for the best of so many `tried` (Bonferroni).
    """
    n = paired.examples + 2.0
    added = np.where(paired.differing > 0, paired.squares / np.maximum(paired.differing, 1), 1.0)
    middle = gains * paired.examples / n
    z = float(norm.ppf(1 - 0.025 / tried))
    margin = z * np.sqrt(((paired.squares + 2 * added) / n - middle**2) / n)
    unknown = paired.examples == 0
    low, high = np.maximum(middle - margin, -1.0), np.minimum(middle + margin, 1.0)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)
