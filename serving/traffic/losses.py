"""Whether answers get worse, by what feedback says of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_ind

from ..skills.recalibration import Rewarded

LEAST = 20
"""Fewer decisions in a half than this say nothing."""


@dataclass(frozen=True)
class Losses:
    """Rewards less what was expected, means of the earlier and the later half; `p` of no fall, one-sided (Welch)."""

    rewarded: int
    earlier: float
    later: float
    p: float


def losses_of(rewarded: Sequence[Rewarded]) -> Losses | None:
    """Compare the halves of decisions in their order; None where there are too few."""
    surprises = np.array([each.reward - each.expected for each in rewarded])
    first, second = np.array_split(surprises, 2)
    if min(len(first), len(second)) < LEAST:
        return None
    # Feedback that always agrees has no spread to test by.
    if first.std() + second.std() < 1e-9:
        p = float(second.mean() >= first.mean())
    else:
        p = float(ttest_ind(second, first, equal_var=False, alternative="less").pvalue)
    return Losses(len(surprises), float(first.mean()), float(second.mean()), p)
