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

Feedback is weighted per giver, an API key. Those who agree count by how much they told; where they differ by more than chance, that
is added to each one's variance, so that in the end each counts alike and the mean is as uncertain as they are at odds (the
random-effects mean of DerSimonian and Laird, 1986). One key's flood of lies therefore moves little where other keys tell otherwise; where
there is but one key, it decides.

Safeguards: an adapter or base with fewer than `least` decisions changes nothing; the first `tolerance` of a difference is put
down to the assumption, which is never quite true; the rest is shrunk toward 0 as a normal prior of standard deviation
`bound / 2` demands, so that noise moves little; and no correction exceeds `bound`, whatever the feedback says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

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

    The expectation is without any correction; `giver` is who told the reward.
    """

    adapter: str | None
    expected: float
    reward: float
    giver: str | None = None


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
    surprises: dict[str | None, dict[str | None, list[float]]] = {None: {}}
    for each in rewarded:
        by_giver = surprises.setdefault(each.adapter, {})
        by_giver.setdefault(each.giver, []).append(each.reward - each.expected)
    base = _Surprise.of(surprises.pop(None))
    return [
        _correction(adapter, _Surprise.of(surprises[adapter]), base, bound, least, tolerance)
        for adapter in sorted(name for name in surprises if name is not None)
    ]


@dataclass(frozen=True)
class _Surprise:
    """The mean surprise of `count` decisions, and its variance."""

    count: int
    mean: float
    variance: float

    @classmethod
    def of(cls, by_giver: Mapping[str | None, Sequence[float]]) -> Self:
        """Over givers; see this module."""
        groups = [np.array(told) for told in by_giver.values()]
        count = sum(len(group) for group in groups)
        if count < 2:
            return cls(count, 0.0, np.inf)
        counts = np.array([len(group) for group in groups])
        means = np.array([group.mean() for group in groups])
        within = _variance(groups) / counts
        weights = 1 / (within + _between(means, 1 / within))
        return cls(count, float(np.average(means, weights=weights)), float(1 / weights.sum()))


def _correction(
    adapter: str,
    surprise: _Surprise,
    base: _Surprise,
    bound: float,
    least: int,
    tolerance: float,
) -> Correction:
    if min(surprise.count, base.count) < max(least, 2):
        return Correction(adapter, surprise.count, None, None, 0.0)
    difference = surprise.mean - base.mean
    variance = surprise.variance + base.variance
    prior = (bound / 2) ** 2
    beyond = np.sign(difference) * max(abs(difference) - tolerance, 0.0)
    shrunk = beyond * prior / (prior + variance)
    bounded = float(np.clip(shrunk, -bound, bound))
    return Correction(adapter, surprise.count, difference, float(np.sqrt(variance)), bounded)


def _variance(groups: Sequence[NDArray[np.float64]]) -> float:
    """The variance of one decision among its giver's; among all where each giver told of one."""
    told = np.concatenate(groups)
    spare = len(told) - len(groups)
    if spare == 0:
        return max(float(told.var(ddof=1)), _LEAST_VARIANCE)
    return max(sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / spare, _LEAST_VARIANCE)


def _between(means: NDArray[np.float64], precisions: NDArray[np.float64]) -> float:
    """The variance among givers (n,) beyond chance, by the method of moments."""
    if len(means) < 2:
        return 0.0
    agreed = np.average(means, weights=precisions)
    beyond = float((precisions * (means - agreed) ** 2).sum()) - (len(means) - 1)
    scale = precisions.sum() - (precisions**2).sum() / precisions.sum()
    return max(beyond / float(scale), 0.0)
