"""When the base model should answer: how sure a predicted gain must be, given what there is to lose.

A predicted gain must exceed zero by z standard errors. A standard error is larger the less is known of requests like
this, and smaller the less there is to lose: where the base model is hardly ever right, no adapter can do much worse. z
is chosen by what routing with it does to requests that were held out, in each way (`folds.py`), counted in groups of
tasks that are alike:

1. The groups harmed, and one more, keep the risk: conformal risk control (arXiv 2208.02814).
2. Of the values that do, the one of the best mean gain is taken; of several that are as good, the highest.
3. Fewer than 1 / risk - 1 groups, nineteen at 5%, cannot show that a risk is kept, whatever the outcomes. There none
   may be harmed, and z is at least LEAST_Z.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Z_GRID: Array = np.arange(33) / 8
"""Values of z that are tried."""

LEAST_CARE = 0.25
"""That of a base model that is right once in sixty: what is expected of it is not certain, and to switch for nothing
helps nobody."""

UNSEEN_GROUPS, EVEN = 5.0, 0.5
"""What base does on kinds that nobody profiled counts as if so many more groups had been answered by an even chance."""

LEAST_Z = 1.0
"""The smallest z of a profile with too few data sets to calibrate it on."""


@dataclass(frozen=True)
class RiskCurve:
    """What routing with each of `z` (c,) does to groups held out: their `gains` (c, groups), and whether they are
    `harmed`.
    """

    z: Array
    gains: Array
    harmed: NDArray[np.bool_]

    @classmethod
    def of(cls, predicted: Array, error: Array, gains: Array, groups: NDArray[np.intp], count: int) -> Self:
        """Route requests by `predicted` (n, adapters) with standard errors `error` (n,); `gains` (n, adapters) are
        measured.

        `groups` (n,) numbers what is held out together, of `count` in all; those without requests here gain nothing. A
        group is harmed where its mean gain is significantly below zero, by a one-sided test at 5% over all groups
        (Bonferroni): at 5% each, one of two dozen would seem harmed by chance.
        """
        rows = np.arange(len(predicted))
        best = predicted.argmax(axis=1)
        expected, measured = predicted[rows, best], gains[rows, best]
        realised = np.where(expected > Z_GRID[:, None] * error, measured, 0.0)
        sizes = np.maximum(np.bincount(groups, minlength=count), 1)
        means, squares = (_sums(values, groups, count) / sizes for values in (realised, realised**2))
        spread = np.sqrt(np.maximum(squares - means**2, 0.0) / sizes)
        limit = NormalDist().inv_cdf(1 - 0.05 / count)
        return cls(Z_GRID, means, means + limit * spread < 0)

    @classmethod
    def joined(cls, curves: Sequence[Self]) -> Self:
        """The curve of the same groups in all of `curves`, which count alike; harm in one is harm."""
        gains = np.mean([curve.gains for curve in curves], axis=0)
        return cls(curves[0].z, gains, np.any([curve.harmed for curve in curves], axis=0))

    def best_z(self, risk: float) -> float:
        """The z to route with, by the rules of this module."""
        groups = self.gains.shape[1]
        few = are_few(groups, risk)
        allowed = 0.0 if few else risk * (groups + 1) - 1
        unsafe = np.flatnonzero(self.harmed.sum(axis=1) > allowed)
        first = min(unsafe.max(initial=-1) + 1, len(self.z) - 1)
        mean = self.gains[first:].mean(axis=1)
        best = float(self.z[first + np.flatnonzero(mean >= mean.max() - 1e-12).max()])
        return max(best, LEAST_Z) if few else best


def care(base: Array) -> Array:
    """How much there is to lose, from LEAST_CARE to 1, where the base model's expected score is `base`.

    The spread of an answer's score, by that of an even chance: where base is never right no adapter can do worse.
    """
    chance = np.clip(base, 0.0, 1.0)
    return np.maximum(2 * np.sqrt(chance * (1 - chance)), LEAST_CARE)


def expected_base(views: Array, weights: Array, groups: int) -> Array:
    """The base model's expected score (...) by what views (..., views) say of it, believed by `weights` (evidence,).

    What holds in general is drawn to an even chance: the few `groups` that were profiled are what adapters are for, and
    so what base is bad at.
    """
    general = (groups * views[..., 0] + UNSEEN_GROUPS * EVEN) / (groups + UNSEEN_GROUPS)
    return np.clip(general + weights[1] * views[..., 1], 0.0, 1.0)


def are_few(groups: int, risk: float) -> bool:
    """Whether so many data sets are too few to show that a risk is kept."""
    return risk * (groups + 1) < 1


def _sums(values: Array, groups: NDArray[np.intp], count: int) -> Array:
    """Sums of `values` (c, n) over each group, (c, count)."""
    return np.array([np.bincount(groups, row, minlength=count) for row in values], dtype=np.float64)
