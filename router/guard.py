"""When the base model should answer: how sure a predicted gain must be, given what there is to lose.

A predicted gain must exceed zero by z standard errors. A standard error is larger the less is known of requests like
this, and smaller the less there is to lose: where the base model is hardly ever right, no adapter can do much worse. z
is chosen by what routing with it does to requests that were held out, in each way (`folds.py`), counted in groups of
tasks that are alike:

1. The groups surely harmed, and one more, keep the risk: conformal risk control (arXiv 2208.02814). Of the values that
   do, the smallest is taken, for more caution costs more than it saves.
2. Fewer than 1 / risk - 1 groups, nineteen at 5%, cannot show that. There none may be surely harmed, and a gain of next
   to nothing is none.
"""

from statistics import NormalDist

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


def harmed_groups(
    predicted: Array, error: Array, gains: Array, groups: NDArray[np.intp], *, count: int, tests: int
) -> NDArray[np.bool_]:
    """Which groups routing with each of Z_GRID (c,) surely harms, (c, count).

    Requests are routed by `predicted` (n, adapters) with standard errors `error` (n,); `gains` (n, adapters) are
    measured. `groups` (n,) numbers what is held out together, of `count` in all; those without requests here are not
    harmed. A group is harmed where its mean gain is significantly below zero, by a one-sided test at 5% over all
    `tests` (Bonferroni): at 5% each, one of two dozen would seem harmed by chance.
    """
    rows = np.arange(len(predicted))
    best = predicted.argmax(axis=1)
    expected, measured = predicted[rows, best], gains[rows, best]
    realised = np.where(expected > Z_GRID[:, None] * error, measured, 0.0)
    sizes = np.maximum(np.bincount(groups, minlength=count), 1)
    means, squares = (_sums(values, groups, count) / sizes for values in (realised, realised**2))
    spread = np.sqrt(np.maximum(squares - means**2, 0.0) / sizes)
    return means + NormalDist().inv_cdf(1 - 0.05 / tests) * spread < 0


def smallest_z(harmed: NDArray[np.bool_], risk: float) -> float:
    """The smallest of Z_GRID at which the `harmed` groups (c, groups) keep the risk, or else the largest."""
    allowed = risk * (harmed.shape[1] + 1) - 1
    least = FEW_GROUPS_Z if allowed < 0 else 0.0
    kept = np.flatnonzero((harmed.sum(axis=1) <= max(allowed, 0.0)) & (least <= Z_GRID))
    return float(Z_GRID[kept[0] if len(kept) else -1])


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
