"""When the base model should answer: how new a request is, and how sure a predicted gain must be.

A predicted gain must exceed zero by z standard errors. z is chosen by what routing with it does to requests that were
left out of the fit, counted in data sets, with all tasks made of one taken together, since those are alike:

1. The data sets harmed, and one more, keep the risk: conformal risk control (arXiv 2208.02814).
2. Of the values that do, the one of the best mean gain is taken; of several that are as good, the highest.
3. It holds of a request as far as that is new. Requests of profiled kinds need no margin: those were measured.
4. Fewer than 1 / risk - 1 data sets, nineteen at 5%, cannot show that a risk is kept, whatever the outcomes. There none
   may be harmed, z is at least LEAST_Z, and it holds of every request. So it is chosen by what it does to requests of
   profiled kinds too: where nothing is predicted of new ones, as without any training rows, they would ask for the
   highest z, and no request would ever get an adapter.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEAST_SPREAD = 0.02
Z_GRID: Array = np.arange(33) / 8
"""Values of z that are tried."""

LEAST_Z = 1.0
"""The smallest z of a profile with too few data sets to calibrate it on."""


@dataclass(frozen=True)
class Novelty:
    """How unseen mass tells requests of a new kind from requests of profiled tasks.

    `known` and `new` are its means on held-out requests of profiled tasks and of tasks left out of the fit, `spread` is
    the standard deviation within both.
    """

    known: float
    new: float
    spread: float

    @classmethod
    def of(cls, known: Array, new: Array) -> Self:
        """Fit to the unseen masses (n,) and (m,) of held-out requests."""
        spread = float(np.hypot(known.std(), new.std()) / np.sqrt(2))
        return cls(float(known.mean()), float(new.mean()), max(spread, LEAST_SPREAD))

    def probability(self, unseen: Array) -> Array:
        """The probability (n,) that requests of unseen mass (n,) are of a new kind, both kinds being equally frequent.

        A linear discriminant: both kinds are taken as normal, with one spread.
        """
        slope = max(self.new - self.known, 0.0) / self.spread**2
        return sigmoid(slope * (unseen - (self.known + self.new) / 2))


@dataclass(frozen=True)
class RiskCurve:
    """What routing with each of `z` (c,) does to groups left out: their `gains` (c, groups), and whether they are
    `harmed`.
    """

    z: Array
    gains: Array
    harmed: NDArray[np.bool_]

    @classmethod
    def of(cls, predicted: Array, error: Array, gains: Array, groups: NDArray[np.intp]) -> "RiskCurve":
        """Route requests by `predicted` (n, adapters) with standard errors `error` (n,); `gains` (n, adapters) are
        measured.

        `groups` (n,) numbers what is left out together. A group is harmed where its mean gain is significantly below
        zero, by a one-sided test at 5% over all groups (Bonferroni): at 5% each, one of two dozen would seem harmed by
        chance.
        """
        rows = np.arange(len(predicted))
        best = predicted.argmax(axis=1)
        expected, measured = predicted[rows, best], gains[rows, best]
        realised = np.where(expected > Z_GRID[:, None] * error, measured, 0.0)
        means, squares = (_group_means(values, groups) for values in (realised, realised**2))
        spread = np.sqrt(np.maximum(squares - means**2, 0.0) / np.bincount(groups))
        limit = NormalDist().inv_cdf(1 - 0.05 / means.shape[1])
        return cls(Z_GRID, means, means + limit * spread < 0)

    def beside(self, other: "RiskCurve") -> "RiskCurve":
        """The curve of the same groups' requests here and in `other`, which count alike."""
        return RiskCurve(self.z, (self.gains + other.gains) / 2, self.harmed | other.harmed)

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


def are_few(groups: int, risk: float) -> bool:
    """Whether so many data sets are too few to show that a risk is kept."""
    return risk * (groups + 1) < 1


def sigmoid(x: Array) -> Array:
    """The logistic function, 1 / (1 + exp(-x)), in a form that does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _group_means(values: Array, groups: NDArray[np.intp]) -> Array:
    """Means of `values` (c, n) over each group, (c, groups)."""
    sizes = np.bincount(groups)
    return np.array([np.bincount(groups, row) for row in values]) / sizes
