"""One correction for each adapter, whatever the request: how feedback was used before 2026-12-01.

A difference in differences: the mean surprise of the adapter's decisions less that of base's, of which the first
`TOLERANCE` is put down to the assumption that rewards lie above measured scores alike for both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from traitroute.serving.skills.recalibration import LEAST, Rewarded

BOUND, TOLERANCE = 0.1, 0.15
_LEAST_VARIANCE = 0.01


def corrections(rewarded: Sequence[Rewarded]) -> dict[str, float]:
    """The correction of every adapter with feedback, by name."""
    surprises: dict[str | None, dict[str | None, list[float]]] = {None: {}}
    for each in rewarded:
        by_reporter = surprises.setdefault(each.adapter, {})
        by_reporter.setdefault(each.reporter, []).append(each.reward - each.expected)
    base = _Surprise.of(surprises.pop(None))
    return {name: _correction(_Surprise.of(of), base) for name, of in surprises.items() if name is not None}


@dataclass(frozen=True)
class _Surprise:
    """The mean surprise of `count` decisions, and its variance."""

    count: int
    mean: float
    variance: float

    @classmethod
    def of(cls, by_reporter: Mapping[str | None, Sequence[float]]) -> Self:
        """The random-effects mean over reporters."""
        groups = [np.array(surprises) for surprises in by_reporter.values()]
        count = sum(len(group) for group in groups)
        if count < 2:
            return cls(count, 0.0, np.inf)
        counts = np.array([len(group) for group in groups])
        means = np.array([group.mean() for group in groups])
        within = _variance(groups) / counts
        weights = 1 / (within + _between(means, 1 / within))
        return cls(count, float(np.average(means, weights=weights)), float(1 / weights.sum()))


def _correction(surprise: _Surprise, base: _Surprise) -> float:
    if min(surprise.count, base.count) < LEAST:
        return 0.0
    difference = surprise.mean - base.mean
    prior = (BOUND / 2) ** 2
    beyond = np.sign(difference) * max(abs(difference) - TOLERANCE, 0.0)
    return float(np.clip(beyond * prior / (prior + surprise.variance + base.variance), -BOUND, BOUND))


def _variance(groups: Sequence[NDArray[np.float64]]) -> float:
    pooled = np.concatenate(groups)
    freedom = len(pooled) - len(groups)
    if freedom == 0:
        return max(float(pooled.var(ddof=1)), _LEAST_VARIANCE)
    return max(sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / freedom, _LEAST_VARIANCE)


def _between(means: NDArray[np.float64], precisions: NDArray[np.float64]) -> float:
    if len(means) < 2:
        return 0.0
    agreed = np.average(means, weights=precisions)
    beyond = float((precisions * (means - agreed) ** 2).sum()) - (len(means) - 1)
    scale = precisions.sum() - (precisions**2).sum() / precisions.sum()
    return max(beyond / float(scale), 0.0)
