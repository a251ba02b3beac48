"""How cautious the router must be, so that it harms no more than a stated share of the data sets it does not know.

The caution is how many standard errors a predicted gain must exceed zero by, judged by what routing at it does to
requests that were left out of the fit. What is counted are data sets, with all tasks made of one, since those are alike:

1. Left-out data sets, and one more that is counted as harmed, keep the risk: conformal risk control (arXiv 2208.02814).
2. Of the cautions that do, the one of the best mean gain is taken; of several that are as good, the highest.
3. It holds of a request as far as that is new. What was measured of kinds that were profiled needs none.
4. Fewer than 1 / risk - 1 data sets, nineteen at 5%, cannot show that a risk is kept, whatever they do. There none may
   be harmed, the caution is at least FEW_TASKS, and it holds of every request.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]
CAUTIONS: Array = np.arange(33) / 8
"""Standard errors tried."""

FEW_TASKS = 1.0
"""The least caution of a profile of too few data sets to calibrate it on."""


def are_few(groups: int, risk: float) -> bool:
    """Whether so many data sets are too few to show that a risk is kept."""
    return risk * (groups + 1) < 1


@dataclass(frozen=True)
class CautionCurve:
    """What routing at each of `cautions` (c,) does to groups left out: their gains (c, groups), and whether they are harmed."""

    cautions: Array
    gains: Array
    harmed: NDArray[np.bool_]

    @classmethod
    def of(cls, predicted: Array, error: Array, gains: Array, groups: NDArray[np.intp]) -> "CautionCurve":
        """Route requests by `predicted` (n, adapters) with standard errors `error` (n,); `gains` (n, adapters) are measured.

        `groups` (n,) numbers what is left out together. A group is harmed where its mean gain is significantly below zero, by a
        one-sided test at 5% over all groups (Bonferroni): at 5% each, one of two dozen would seem harmed by chance.
        """
        rows = np.arange(len(predicted))
        best = predicted.argmax(axis=1)
        lead, got = predicted[rows, best], gains[rows, best]
        realised = np.where(lead > CAUTIONS[:, None] * error, got, 0.0)
        means, squares = (_means(values, groups) for values in (realised, realised**2))
        spread = np.sqrt(np.maximum(squares - means**2, 0.0) / np.bincount(groups))
        limit = float(norm.isf(0.05 / means.shape[1]))
        return cls(CAUTIONS, means, means + limit * spread < 0)

    def caution(self, risk: float) -> float:
        """The caution to route with; see this module."""
        groups = self.gains.shape[1]
        few = are_few(groups, risk)
        allowed = 0.0 if few else risk * (groups + 1) - 1
        unsafe = np.flatnonzero(self.harmed.sum(axis=1) > allowed)
        first = min(unsafe.max(initial=-1) + 1, len(self.cautions) - 1)
        mean = self.gains[first:].mean(axis=1)
        found = float(self.cautions[first + np.flatnonzero(mean >= mean.max() - 1e-12).max()])
        return max(found, FEW_TASKS) if few else found


def _means(values: Array, groups: NDArray[np.intp]) -> Array:
    """Means of `values` (c, n) over each group, (c, groups)."""
    sizes = np.bincount(groups)
    return np.array([np.bincount(groups, row) for row in values]) / sizes
