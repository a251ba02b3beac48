"""Measured gains with their intervals: paired outcomes of an adapter and the base model on the same examples.

The interval is Bonett and Price's (2012) adjusted Wald interval for paired proportions: one success is added to each
kind of discordance, which keeps its coverage at a few dozen examples, where the plain interval and the bootstrap
shrink to nothing as soon as all examples agree. The row of an adapter that joined later is estimated from a few examples;
its interval is what profiling found the standard error of that to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from ...adapters import Cell, Registry
from .models import MeasuredGain

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Z = float(norm.ppf(0.975))
"""Standard errors that an interval of 95% reaches."""


@dataclass(frozen=True)
class Measured:
    """Scores of `adapters` on `tasks`, (a, t), and of base, (t,); `low` and `high` (a, t) are nan where they are not known."""

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    base: Array
    scores: Array
    low: Array
    high: Array
    examples: Counts

    @classmethod
    def read(cls, registry: Registry, summary: Mapping[str, Any]) -> Self:
        """Read what the profile of `summary` was fitted to.

        Raises:
            ValueError: its parts do not fit together.
        """
        adapters, tasks = tuple(summary["adapters"]), tuple(summary["tasks"])
        won, lost, examples = _kept(summary) or _discordant(registry.cells(keys=summary["cells"]), adapters, tasks)
        base, scores = np.array(summary["base"], float), np.array(summary["scores"], float)
        shape = (len(adapters), len(tasks))
        if scores.shape != shape or examples.shape != shape:
            raise ValueError(f"{scores.shape} scores of {len(adapters)} adapters on {len(tasks)} tasks")
        low, high = paired_interval(won, lost, examples)
        gains = scores - base
        places = {name: i for i, name in enumerate(adapters)}
        for name, row in summary.get("estimated", {}).items():
            i, reach = places[name], Z * np.array(row["errors"], float)
            low[i], high[i] = np.maximum(gains[i] - reach, -1.0), np.minimum(gains[i] + reach, 1.0)
            examples[i] = row["examples"]
        return cls(adapters, tasks, base, scores, low, high, examples)

    @cached_property
    def gains(self) -> Array:
        """Score of each adapter less the base model's, (a, t)."""
        return self.scores - self.base

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {adapter: i for i, adapter in enumerate(self.adapters)}

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
            score=float(self.scores[i, j]),
            base=float(self.base[j]),
            gain=float(self.scores[i, j] - self.base[j]),
            low=float(self.low[i, j]) if known else None,
            high=float(self.high[i, j]) if known else None,
            examples=int(self.examples[i, j]),
        )


def paired_interval(won: Counts, lost: Counts, examples: Counts) -> tuple[Array, Array]:
    """The interval's ends where `won` of `examples` only the adapter got right, and `lost` only base; nan for no examples."""
    n = examples + 2.0
    gained, given_up = (won + 1) / n, (lost + 1) / n
    middle = gained - given_up
    reach = Z * np.sqrt((gained + given_up - middle**2) / n)
    unknown = examples == 0
    low, high = np.maximum(middle - reach, -1.0), np.minimum(middle + reach, 1.0)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def _kept(summary: Mapping[str, Any]) -> tuple[Counts, Counts, Counts] | None:
    """The counts as profiling leaves them in the summary, if it did for all rows: cells need not be read then."""
    kept = summary.get("paired", {})
    if len(kept.get("won", ())) != len(summary["adapters"]):
        return None
    won, lost, examples = (np.array(kept[part], int) for part in ("won", "lost", "examples"))
    return won, lost, examples


def _discordant(cells: list[Cell], adapters: tuple[str, ...], tasks: tuple[str, ...]) -> tuple[Counts, Counts, Counts]:
    """How many examples only the adapter, and only base, got right, and of how many, each (a, t)."""
    right = {(c.adapter, c.task): c.outcomes.strict for c in cells}
    won, lost, examples = (np.zeros((len(adapters), len(tasks)), np.int64) for _ in range(3))
    for i, adapter in enumerate(adapters):
        for j, task in enumerate(tasks):
            ours, base = right.get((adapter, task)), right.get((None, task))
            # Rows measured on fewer examples are paired with no others: their gain is an estimate.
            if ours is None or base is None or len(ours) != len(base):
                continue
            won[i, j] = np.sum(ours & ~base)
            lost[i, j] = np.sum(base & ~ours)
            examples[i, j] = len(ours)
    return won, lost, examples
