"""Which task to profile next: what the novel requests have in common, and which candidate would cover them.

Whether answers get worse shows in feedback: rewards less what was expected, in the later half of decisions.

Novel requests are grouped by their features (spherical k-means; the number of groups is the one of the best
silhouette). A *candidate* is a task that could be profiled, with some of its prompts. It covers a request that lies
nearer to its mean than to that of every profiled task and every other candidate, and no farther than its own prompts
do, up to two standard deviations. Candidates are suggested one after the other, each for the requests that those
before it do not cover.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, ttest_ind
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from ...adapters import DemandWindow
from ...router import RoutingProfile
from ...router.kinds import unit

Array = NDArray[np.float64]
MOST_GROUPS = 8
FEW = 20
"""Fewer novel requests than this are not grouped."""
LEAST = 20
"""Fewer decisions in a half than this say nothing."""


@dataclass(frozen=True)
class NovelShare:
    """Shares of novel requests in the earlier and the later half of the windows; `p` of no rise, one-sided."""

    requests: int
    novel: int
    earlier: float
    later: float
    p: float


@dataclass(frozen=True)
class Losses:
    """Rewards less what was expected, means of the earlier and the later half; `p` of no fall, one-sided (Welch)."""

    rewarded: int
    earlier: float
    later: float
    p: float


@dataclass(frozen=True)
class Group:
    """Novel requests that are alike: their share of all novel ones, and the profiled tasks they are least unlike."""

    share: float
    nearest: tuple[str, ...]


@dataclass(frozen=True)
class Suggestion:
    """A candidate and the share of the novel requests that it covers, beyond those suggested before it."""

    task: str
    share: float


def novelty_of(windows: Sequence[DemandWindow]) -> NovelShare:
    """Whether novel requests become more frequent: two proportions compared by the normal approximation."""
    half = len(windows) // 2
    (n1, k1), (n2, k2) = (_sums(part) for part in (windows[:half], windows[half:]))
    pooled = (k1 + k2) / max(n1 + n2, 1)
    error = np.sqrt(pooled * (1 - pooled) * (1 / max(n1, 1) + 1 / max(n2, 1)))
    earlier, later = k1 / max(n1, 1), k2 / max(n2, 1)
    p = float(norm.sf((later - earlier) / error)) if error > 0 and n1 else 1.0
    return NovelShare(n1 + n2, k1 + k2, earlier, later, p)


def losses_of(surprises: Sequence[float]) -> Losses | None:
    """Compare the halves of rewards less what was expected, in their order; None where there are too few."""
    first, second = np.array_split(np.array(surprises), 2)
    if min(len(first), len(second)) < LEAST:
        return None
    # Feedback that always agrees has no spread to test by.
    if first.std() + second.std() < 1e-9:
        p = float(second.mean() >= first.mean())
    else:
        p = float(ttest_ind(second, first, equal_var=False, alternative="less").pvalue)
    return Losses(len(surprises), float(first.mean()), float(second.mean()), p)


def groups_of(rows: Array, profile: RoutingProfile, *, random_state: int = 0) -> list[Group]:
    """Group the features of novel requests (n, p), the largest group first."""
    if not len(rows):
        return []
    directions = unit(rows)
    groups = []
    for label in np.unique(labels := _grouped(directions, random_state)):
        members = directions[labels == label]
        near = unit(profile.centroids) @ unit(members.mean(axis=0))
        nearest = tuple(profile.tasks[i] for i in np.argsort(-near)[:3])
        groups.append(Group(len(members) / len(directions), nearest))
    return sorted(groups, key=lambda group: -group.share)


def suggestions(rows: Array, candidates: Mapping[str, Array], profile: RoutingProfile) -> list[Suggestion]:
    """Rank candidates, features of their prompts (m, p), by the share of novel requests (n, p) each adds."""
    if not len(rows) or not candidates:
        return []
    covered = _covered(unit(rows), candidates, profile)
    suggested, left = [], np.ones(len(rows), dtype=bool)
    for _ in candidates:
        adds = (covered & left[:, None]).mean(axis=0)
        best = int(adds.argmax())
        if adds[best] == 0:
            break
        suggested.append(Suggestion(list(candidates)[best], float(adds[best])))
        left &= ~covered[:, best]
    return suggested


def _covered(directions: Array, candidates: Mapping[str, Array], profile: RoutingProfile) -> NDArray[np.bool_]:
    """Which requests each candidate covers, (n, candidates)."""
    known = (directions @ unit(profile.centroids).T).max(axis=1)
    likeness, least = [], []
    for prompts in candidates.values():
        own = unit(prompts)
        center = unit(own.mean(axis=0))
        typical = own @ center
        likeness.append(directions @ center)
        least.append(typical.mean() - 2 * typical.std())
    near = np.array(likeness).T
    first = near.argmax(axis=1)[:, None] == np.arange(len(candidates))
    return first & (near > known[:, None]) & (near >= np.array(least))


def _grouped(directions: Array, random_state: int) -> NDArray[np.intp]:
    whole = np.zeros(len(directions), dtype=np.intp)
    if len(directions) < FEW:
        return whole
    tried = []
    for k in range(2, MOST_GROUPS + 1):
        labels = KMeans(k, n_init=4, random_state=random_state).fit_predict(directions)
        if len(np.unique(labels)) > 1:
            tried.append((float(silhouette_score(directions, labels, metric="cosine")), labels))
    return max(tried, key=lambda each: each[0])[1] if tried else whole


def _sums(windows: Sequence[DemandWindow]) -> tuple[int, int]:
    return sum(w.requests for w in windows), sum(w.novel for w in windows)
