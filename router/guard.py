"""When the base model should answer: how sure a predicted gain must be, given what there is to lose.

A predicted gain must exceed zero by z standard errors. A standard error is larger the less is known of requests like
this, and smaller the less there is to lose: where the base model is hardly ever right, no adapter can do much worse. z
is chosen by what routing with it does to requests that were held out, in each way (`folds.py`), counted in groups of
tasks that are alike:

1. The groups surely harmed, and one more, keep the risk: conformal risk control (arXiv 2208.02814). Of the values that
   do, the smallest is taken, for more caution costs more than it saves.
2. Fewer than 1 / risk - 1 groups, nineteen at 5%, cannot show that. There those surely harmed may lose no more than the
   risk of all points that routing moves, in all ways together: were none to be harmed, one group unlike the others
   would keep adapters from requests of kinds that are known well. And a gain of next to nothing is none.
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

FEW_GROUPS_Z = 0.25
"""The least z where too few groups are profiled to show that the risk is kept."""


@dataclass(frozen=True)
class Realised:
    """What routing with each of Z_GRID (c,) does to groups: their mean gain, and whether they are surely harmed, both
    (c, groups)."""

    means: Array
    harmed: NDArray[np.bool_]

    @classmethod
    def of(
        cls, predicted: Array, error: Array, gains: Array, groups: NDArray[np.intp], *, count: int, tests: int
    ) -> Self:
        """Route requests by `predicted` (n, adapters) with standard errors `error` (n,); `gains` (n, adapters) are
        measured.

        `groups` (n,) numbers what is held out together, of `count` in all; those without requests here gain nothing. A
        group is harmed where its mean gain is significantly below zero, by a one-sided test at 5% over all `tests`
        (Bonferroni): at 5% each, one of two dozen would seem harmed by chance.
        """
        rows = np.arange(len(predicted))
        best = predicted.argmax(axis=1)
        expected, measured = predicted[rows, best], gains[rows, best]
        realised = np.where(expected > Z_GRID[:, None] * error, measured, 0.0)
        sizes = np.maximum(np.bincount(groups, minlength=count), 1)
        means, squares = (_sums(values, groups, count) / sizes for values in (realised, realised**2))
        spread = np.sqrt(np.maximum(squares - means**2, 0.0) / sizes)
        return cls(means, means + NormalDist().inv_cdf(1 - 0.05 / tests) * spread < 0)


def smallest_z(ways: Sequence[Realised], risk: float) -> float:
    """The smallest of Z_GRID with which what was held out in several `ways` keeps the risk, or else the largest."""
    harmed = np.any([each.harmed for each in ways], axis=0)
    allowed = risk * (harmed.shape[1] + 1) - 1
    if allowed < 0:
        moved = sum(np.abs(each.means).sum(axis=1) for each in ways)
        lost = sum(np.where(each.harmed, -each.means, 0.0).sum(axis=1) for each in ways)
        kept = (lost <= risk * moved) & (Z_GRID >= FEW_GROUPS_Z)
    else:
        kept = harmed.sum(axis=1) <= allowed
    return float(Z_GRID[kept.argmax() if kept.any() else -1])


def care(base: Array) -> Array:
    """How much there is to lose, from LEAST_CARE to 1, where the base model's expected score is `base`.

    The spread of an answer's score, by that of an even chance: where base is never right no adapter can do worse.
    """
    chance = np.minimum(np.maximum(base, 0.0), 1.0)
    return np.maximum(2 * np.sqrt(chance * (1 - chance)), LEAST_CARE)


def expected_base(general: Array, near: Array, weights: Array, groups: int) -> Array:
    """The base model's expected score (...) by what both views (...) say of it, believed by `weights` (evidence,).

    What holds in general is drawn to an even chance: the few `groups` that were profiled are what adapters are for, and
    so what base is bad at.
    """
    general = (groups * general + UNSEEN_GROUPS * EVEN) / (groups + UNSEEN_GROUPS)
    return np.minimum(np.maximum(general + weights[1] * near, 0.0), 1.0)


def _sums(values: Array, groups: NDArray[np.intp], count: int) -> Array:
    """Sums of `values` (c, n) over each group, (c, count)."""
    return np.array([np.bincount(groups, row, minlength=count) for row in values], dtype=np.float64)
