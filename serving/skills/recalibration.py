"""Corrections of predicted gains, learnt from how decisions turned out.

A reward says how good an answer was, not how much better than the base model's: what base alone would have got on that
request is never seen. What is known is the score that base was measured to have on the task most similar to the request
(its level), so a decision's surprise is `reward - level - predicted gain`. Rewards need not be on the scale of the
measured scores (users are kinder than an exact match), which shifts every surprise alike; the decisions for base show
that shift. An adapter's correction is therefore a difference in differences,

    mean surprise of its decisions - mean surprise of base's decisions,

and it rests on one assumption: **rewards lie above or below the measured level by the same amount on requests that went
to the adapter as on those that went to base.** Where rewards for some kind of request are lower for other reasons than
the answer, an adapter that serves that kind is blamed for it. Nothing is explored: an adapter that is no longer chosen
gets no more rewards, and keeps its correction until the feedback behind it is older than the window.

Feedback is weighted per reporter, that is, per API key. Reporters who agree count by how much feedback they gave; where
they differ by more than chance, the variance between them is added to each one's own, so that at most each counts alike
and the mean is as uncertain as they are at odds (the random-effects mean of DerSimonian and Laird, 1986). A flood of
lies from one key therefore moves little where other keys disagree; a single key decides alone.

Safeguards: with fewer than `least` decisions of the adapter or of base nothing is corrected; the first `tolerance` of a
difference is attributed to the assumption, which is never quite true; the rest is shrunk toward 0 by a normal prior of
standard deviation `bound / 2`, so that noise moves little; and no correction exceeds `bound`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...adapters import Correction, FeedbackSource, Registry
from ...router import RoutingProfile
from ..profile_snapshot import DecisionToken, TokenError

BOUND = 0.1
LEAST = 30
TOLERANCE = 0.15
"""In score points; the smallest of those tried at which corrections cost nothing without drift (docs/skills.md)."""
_LEAST_VARIANCE = 0.01
"""Of one decision; a few rewards that all agree would have a variance of 0."""


@dataclass(frozen=True)
class Rewarded:
    """A decision with feedback: the adapter that answered (None: base), the expected reward, and the reward given.

    `expected` follows from measured scores, without any correction; `reporter` identifies who gave the reward.
    """

    adapter: str | None
    expected: float
    reward: float
    reporter: str | None = None


def read_rewards(registry: Registry, since: datetime, source: FeedbackSource = FeedbackSource.USER) -> list[Rewarded]:
    """The decisions made `since` that `source` rewarded, by the newest profile or one whose predictions it has kept.

    Decisions by weights that were replaced are left out, and so are those whose request resembled no known task.
    """
    corrected = {
        version: RoutingProfile.from_bytes(registry.profile(version).data).corrections for version in registry.lineage()
    }
    weights = {adapter.name: adapter.weights_digest for adapter in registry.adapters()}
    rewarded = []
    for feedback in registry.feedback(since=since, source=source):
        decision = _decision(feedback.token)
        if decision is None or decision.level is None or feedback.reward is None:
            continue
        if feedback.profile_version not in corrected:
            continue
        correction = 0.0
        if feedback.adapter is not None:
            if not decision.is_of(weights.get(feedback.adapter, "")):
                continue
            correction = corrected[feedback.profile_version].get(feedback.adapter, 0.0)
        expected = decision.level + feedback.predicted_gain - correction
        rewarded.append(Rewarded(feedback.adapter, expected, feedback.reward, feedback.reporter))
    return rewarded


def _decision(token: str) -> DecisionToken | None:
    # Feedback that was put into the registry in another way has no token of ours, so no expected reward.
    with suppress(TokenError):
        return DecisionToken.read(token)
    return None


def corrections(
    rewarded: Sequence[Rewarded], *, bound: float = BOUND, least: int = LEAST, tolerance: float = TOLERANCE
) -> list[Correction]:
    """Estimate the correction of every adapter with feedback, by name, as this module's docstring describes."""
    surprises: dict[str | None, dict[str | None, list[float]]] = {None: {}}
    for each in rewarded:
        by_reporter = surprises.setdefault(each.adapter, {})
        by_reporter.setdefault(each.reporter, []).append(each.reward - each.expected)
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


def _correction(
    adapter: str, surprise: _Surprise, base: _Surprise, bound: float, least: int, tolerance: float
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
    """The variance of one decision within its reporter's; over all decisions where each reporter rewarded only one."""
    pooled = np.concatenate(groups)
    freedom = len(pooled) - len(groups)
    if freedom == 0:
        return max(float(pooled.var(ddof=1)), _LEAST_VARIANCE)
    return max(sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / freedom, _LEAST_VARIANCE)


def _between(means: NDArray[np.float64], precisions: NDArray[np.float64]) -> float:
    """The variance among reporters (n,) beyond chance, by the method of moments."""
    if len(means) < 2:
        return 0.0
    agreed = np.average(means, weights=precisions)
    beyond = float((precisions * (means - agreed) ** 2).sum()) - (len(means) - 1)
    scale = precisions.sum() - (precisions**2).sum() / precisions.sum()
    return max(beyond / float(scale), 0.0)
