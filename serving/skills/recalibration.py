"""Corrections of predicted gains, learnt from how decisions turned out.

A reward says how well the one who answered did, not how much better than base: what base alone would have got on that
request is never seen. What is known is the score that base was measured to have on the task which the request resembles
most (its level), so a decision's surprise is `reward - level - predicted gain`. Rewards need not be on the scale of the
measured scores (users praise more than an exact match does), which shifts every surprise alike; that shift is read off the
decisions for base. An adapter's correction is therefore a difference of differences,

    mean surprise of its decisions - mean surprise of base's decisions,

and it rests on one assumption: **rewards lie above or below the measured level by the same amount on requests that went to
the adapter as on those that went to base.** Where rewards of some kind of request are harsher for other reasons than the
answer, an adapter that serves that kind is blamed for it. Nothing is explored: an adapter that is no longer chosen gathers
no more rewards, and has its correction until what taught it is older than the window.

Safeguards: an adapter or base with fewer than `least` decisions changes nothing; the first `tolerance` of a difference is put
down to the assumption, which is never quite true; the rest is shrunk toward 0 as a normal prior of standard deviation
`bound / 2` demands, so that noise moves little; and no correction exceeds `bound`, whatever the feedback says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOUND = 0.1
LEAST = 30
TOLERANCE = 0.15
"""Score points; the smallest of those tried at which corrections cost nothing where nothing had drifted (docs/skills.md)."""
_LEAST_VARIANCE = 0.01
"""Rewards that all agree still leave doubt."""


@dataclass(frozen=True)
class Rewarded:
    """A decision that was rewarded: who answered (None: base), the reward to expect by what was measured, the reward told.

    The expectation is without any correction.
    """

    adapter: str | None
    expected: float
    reward: float


@dataclass(frozen=True)
class Correction:
    """What feedback says of one adapter: `difference` and its standard `error` (None: too few decisions), and what it comes to."""

    adapter: str
    decisions: int
    difference: float | None
    error: float | None
    correction: float


def corrections(
    rewarded: Sequence[Rewarded],
    *,
    bound: float = BOUND,
    least: int = LEAST,
    tolerance: float = TOLERANCE,
) -> list[Correction]:
    """Learn a correction for every adapter that was rewarded, by name; see this module."""
    surprises: dict[str | None, list[float]] = {None: []}
    for each in rewarded:
        surprises.setdefault(each.adapter, []).append(each.reward - each.expected)
    base = np.array(surprises.pop(None))
    return [
        _correction(adapter, np.array(surprises[adapter]), base, bound, least, tolerance)
        for adapter in sorted(name for name in surprises if name is not None)
    ]


def _correction(
    adapter: str,
    surprises: NDArray[np.float64],
    base: NDArray[np.float64],
    bound: float,
    least: int,
    tolerance: float,
) -> Correction:
    if min(len(surprises), len(base)) < max(least, 2):
        return Correction(adapter, len(surprises), None, None, 0.0)
    difference = float(surprises.mean() - base.mean())
    variance = _variance_of_mean(surprises) + _variance_of_mean(base)
    prior = (bound / 2) ** 2
    beyond = np.sign(difference) * max(abs(difference) - tolerance, 0.0)
    shrunk = beyond * prior / (prior + variance)
    bounded = float(np.clip(shrunk, -bound, bound))
    return Correction(adapter, len(surprises), difference, float(np.sqrt(variance)), bounded)


def _variance_of_mean(values: NDArray[np.float64]) -> float:
    return max(float(values.var(ddof=1)), _LEAST_VARIANCE) / len(values)
