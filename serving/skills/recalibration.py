"""Corrections of predicted gains by kind of request and adapter, learnt from how decisions turned out.

A reward says how good an answer was, not how much better than the base model's. A decision's *surprise* is its reward
less what the profile expected: the score that base was measured to have on the nearest task, plus the predicted gain.
What an adapter gains on a kind of request beyond its profile is the mean surprise of its decisions there less that of
base's decisions there, both weighted by 1 / propensity: so a few conversations of the control group stand for all
that base would have answered, whatever the profile chooses.

Where base answered little on a kind, its surprise there is taken to be that of base elsewhere, give or take `ELSEWHERE`
points: rewards need not be on the scale of measured scores, and are not off by the same everywhere. Corrections are
then the posterior mean of a Gaussian process (Rasmussen and Williams, 2006, section 2.2) whose mean is the profile:

- what an adapter gains beyond its profile is a part that all kinds share, and a part by kind, which is alike on kinds
  that are alike (`router/kinds.py`); requests that are like nothing profiled are one more kind, alike to none;
- beforehand both parts together have a standard deviation of `bound` / 2, half of its variance each, so noise moves
  little, and no correction exceeds `bound`.

Outcomes of one conversation on one kind count as one. Those of one reporter, an API key, are weighed together: to the
variance of their mean is added how far that reporter's mean surprise with the adapter, over all kinds, lies from the
median reporter's, squared, less what is chance. So who is at odds with the others counts for little, however much it
reports and also where others report nothing; two who are at odds count alike, and a single one decides alone.

With fewer than `least` outcomes of the adapter, or of base, in all, nothing is corrected.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from operator import mul

import numpy as np
from numpy.typing import NDArray

from ...adapters import Correction, FeedbackSource, Registry
from ...router import Corrections, RoutingProfile
from ..profile_snapshot import DecisionToken, TokenError

Array = NDArray[np.float64]
BOUND = 0.2
LEAST = 30
ELSEWHERE = 0.15
"""Standard deviation, over kinds, of how far rewards lie above the measured score, in score points."""
LARGEST_WEIGHT = 100.0
"""A decision of less than 1% propensity counts as one of 1%."""
_LEAST_VARIANCE = 0.01
"""Of one decision; a few rewards that all agree would have a variance of 0."""


@dataclass(frozen=True)
class Rewarded:
    """A decision with feedback: the adapter that answered (None: base), the expected reward, and the reward given.

    `expected` follows from measured scores, without any correction; `reporter` identifies who gave the reward. `kind`
    is the profiled task that the request is nearest to (None: like none), `propensity` the probability with which this
    one was to answer; outcomes of one `conversation` count as one (empty: not known).
    """

    adapter: str | None
    expected: float
    reward: float
    reporter: str | None = None
    kind: str | None = None
    propensity: float = 1.0
    conversation: str = ""


def read_rewards(registry: Registry, since: datetime, source: FeedbackSource = FeedbackSource.USER) -> list[Rewarded]:
    """The decisions made `since` that `source` rewarded, by the newest profile or one whose predictions it has kept.

    Decisions by weights that were replaced are left out, and so are those whose request resembled no known task. From a
    predicted gain is taken what corrected it then, in the middle of its kind.
    """
    in_force = {
        version: _by_kind(RoutingProfile.from_bytes(registry.profile(version).data)) for version in registry.lineage()
    }
    weights = {adapter.name: adapter.weights_digest for adapter in registry.adapters()}
    rewarded = []
    for feedback in registry.feedback(since=since, source=source):
        decision = _decision(feedback.token)
        if decision is None or decision.level is None or feedback.reward is None:
            continue
        if feedback.profile_version not in in_force:
            continue
        correction = 0.0
        if feedback.adapter is not None:
            if not decision.is_of(weights.get(feedback.adapter, "")):
                continue
            correction = in_force[feedback.profile_version].get((feedback.adapter, decision.kind), 0.0)
        rewarded.append(
            Rewarded(
                feedback.adapter,
                decision.level + feedback.predicted_gain - correction,
                feedback.reward,
                feedback.reporter,
                decision.kind,
                decision.propensity,
                decision.conversation,
            )
        )
    return rewarded


def _decision(token: str) -> DecisionToken | None:
    # Feedback that was put into the registry in another way has no token of ours, so no expected reward.
    with suppress(TokenError):
        return DecisionToken.read(token)
    return None


@dataclass(frozen=True)
class Learnt:
    """`corrections` for the profile (None: none), and the `cells` behind them, each of a kind and an adapter."""

    corrections: Corrections | None
    cells: tuple[Correction, ...]


def learn(rewarded: Sequence[Rewarded], profile: RoutingProfile, *, bound: float = BOUND, least: int = LEAST) -> Learnt:
    """Estimate the corrections of a profile's gains, as this module's docstring describes.

    Outcomes of adapters that the profile does not have count for nothing.
    """
    cells, before = _cells(rewarded, profile), _by_kind(profile)
    base = _BaseSurprise.of(cells.pop(None, {}))
    learnt = Corrections.none(len(profile.adapters), len(profile.tasks), bound)
    prior = (bound / 2) ** 2 / 2
    alike = np.zeros((len(profile.tasks) + 1,) * 2)
    alike[:-1, :-1] = profile.kinds.alike
    alike[-1, -1] = 1
    rows: list[tuple[str, int, _Cell, float | None, float | None]] = []
    for name in sorted(name for name in cells if name in profile.adapters):
        found, place = cells[name], profile.adapters.index(name)
        if min(base.count, sum(cell.count for cell in found.values())) < max(least, 2):
            rows += [(name, kind, cell, None, None) for kind, cell in found.items()]
            continue
        kinds = np.array(list(found))
        means, variances = np.array([base.at(kind) for kind in found]).T
        beyond = np.array([cell.mean for cell in found.values()]) - means
        noise = np.array([cell.variance for cell in found.values()]) + variances
        covariance = prior * (1 + alike[np.ix_(kinds, kinds)])
        weights = np.linalg.solve(covariance + np.diag(noise), beyond) * prior
        learnt.general[place] = weights.sum()
        known = kinds < len(profile.tasks)
        learnt.near[place, kinds[known]] = weights[known]
        learnt.novel[place] = weights[~known].sum()
        errors = np.sqrt(noise)
        rows += [(name, *row) for row in zip(found, found.values(), beyond, errors, strict=True)]
    after = _by_kind(profile, learnt)
    names: list[str | None] = [*profile.tasks, None]
    return Learnt(
        learnt,
        tuple(
            Correction(
                adapter=name,
                decisions=cell.count,
                difference=None if beyond is None else float(beyond),
                error=None if error is None else float(error),
                correction=after.get((name, names[kind]), 0.0),
                kind=names[kind],
                of_base=base.heard.get(kind, 0),
                before=before.get((name, names[kind]), 0.0),
            )
            for name, kind, cell, beyond, error in rows
        ),
    )


def _by_kind(profile: RoutingProfile, corrections: Corrections | None = None) -> dict[tuple[str, str | None], float]:
    """Corrections by adapter and kind, in the middle of each kind; by default those in force."""
    corrections = corrections or profile.corrections
    if corrections is None:
        return {}
    middles = np.vstack([profile.kinds.alike, np.zeros(len(profile.tasks))])
    values = corrections.of(middles)
    return {
        (name, kind): float(values[k, a])
        for a, name in enumerate(profile.adapters)
        if corrections.anywhere[a]
        for k, kind in enumerate([*profile.tasks, None])
    }


@dataclass(frozen=True)
class _Cell:
    """The mean surprise of `count` decisions, and its variance."""

    count: int
    mean: float
    variance: float


@dataclass(frozen=True)
class _BaseSurprise:
    """What base's decisions say: `mean` and `variance` over all kinds, and by kind those of the kind itself."""

    count: int
    mean: float
    variance: float
    by_kind: Mapping[int, tuple[float, float]]
    heard: Mapping[int, int]

    @classmethod
    def of(cls, cells: Mapping[int, _Cell]) -> "_BaseSurprise":
        if not cells:
            return cls(0, 0.0, np.inf, {}, {})
        precisions = 1 / (np.array([cell.variance for cell in cells.values()]) + ELSEWHERE**2)
        mean = float(np.average([cell.mean for cell in cells.values()], weights=precisions))
        variance = float(1 / precisions.sum())
        by_kind = {}
        for kind, cell in cells.items():
            elsewhere, own = 1 / (variance + ELSEWHERE**2), 1 / cell.variance
            by_kind[kind] = ((elsewhere * mean + own * cell.mean) / (elsewhere + own), 1 / (elsewhere + own))
        heard = {kind: cell.count for kind, cell in cells.items()}
        return cls(sum(heard.values()), mean, variance, by_kind, heard)

    def at(self, kind: int) -> tuple[float, float]:
        """Mean and variance of base's surprise on a kind."""
        return self.by_kind.get(kind, (self.mean, self.variance + ELSEWHERE**2))


@dataclass(frozen=True)
class _Reports:
    """What one reporter says of an adapter on a kind.

    `count` outcomes have a weighted `mean`, as sure as that of `size` unweighted ones, and the sum of `squares` about
    their own.
    """

    count: int
    mean: float
    size: float
    squares: float

    @classmethod
    def of(cls, surprises: Sequence[float], weights: Sequence[float]) -> "_Reports":
        # Plain numbers: there are thousands of these, of a few outcomes each.
        count, total = len(surprises), sum(weights)
        mean = sum(map(mul, surprises, weights)) / total
        middle = sum(surprises) / count
        squares = sum((each - middle) ** 2 for each in surprises)
        return cls(count, mean, total**2 / sum(each**2 for each in weights), squares)


def _cells(rewarded: Sequence[Rewarded], profile: RoutingProfile) -> dict[str | None, dict[int, _Cell]]:
    """The mean surprise of each adapter (None: base) on each kind, by its place; the last is what is like none."""
    places = {task: i for i, task in enumerate(profile.tasks)}
    talks: dict[tuple[str | None, int, str | None, str], list[tuple[float, float]]] = defaultdict(list)
    for i, each in enumerate(rewarded):
        kind = places.get(each.kind, len(places)) if each.kind is not None else len(places)
        talk = each.conversation or f"#{i}"
        weight = min(1 / each.propensity, LARGEST_WEIGHT)
        talks[each.adapter, kind, each.reporter, talk].append((each.reward - each.expected, weight))
    reports: dict[tuple[str | None, int], dict[str | None, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for (adapter, kind, reporter, _), outcomes in talks.items():
        surprise, weight = (sum(values) / len(outcomes) for values in zip(*outcomes, strict=True))
        reports[adapter, kind][reporter].append((surprise, weight))
    parts = {
        cell: {reporter: _Reports.of(*zip(*outcomes, strict=True)) for reporter, outcomes in by_reporter.items()}
        for cell, by_reporter in reports.items()
    }
    variance = _variance([part for each in parts.values() for part in each.values()])
    found: dict[str | None, dict[int, _Cell]] = defaultdict(dict)
    for adapter in dict.fromkeys(adapter for adapter, _ in parts):
        of_adapter = {kind: each for (name, kind), each in parts.items() if name == adapter}
        odds = _at_odds(of_adapter.values(), variance)
        for kind, each in of_adapter.items():
            precisions = [1 / (variance / part.size + odds[reporter]) for reporter, part in each.items()]
            mean = float(np.average([part.mean for part in each.values()], weights=precisions))
            found[adapter][kind] = _Cell(sum(part.count for part in each.values()), mean, 1 / sum(precisions))
    return found


def _variance(parts: Sequence[_Reports]) -> float:
    """The variance of one decision within its kind, adapter and reporter."""
    freedom = sum(part.count - 1 for part in parts)
    if freedom < 2:
        return 0.25
    return max(sum(part.squares for part in parts) / freedom, _LEAST_VARIANCE)


def _at_odds(cells: Iterable[Mapping[str | None, _Reports]], variance: float) -> dict[str | None, float]:
    """The variance added to each reporter's means: its squared distance from the median reporter, beyond chance."""
    by_reporter: dict[str | None, list[_Reports]] = defaultdict(list)
    for cell in cells:
        for reporter, part in cell.items():
            by_reporter[reporter].append(part)
    sizes = {reporter: sum(part.size for part in parts) for reporter, parts in by_reporter.items()}
    means = {r: sum(part.size * part.mean for part in parts) / sizes[r] for r, parts in by_reporter.items()}
    # Who reported little is no measure for the others.
    middle = _median(list(means.values()), [min(size, LEAST) for size in sizes.values()])
    return {r: max((mean - middle) ** 2 - variance / sizes[r], 0.0) for r, mean in means.items()}


def _median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted median; between two that it may be, their mean."""
    order = np.argsort(values)
    ranked, share = np.array(values)[order], np.cumsum(np.array(weights)[order])
    low, high = (np.searchsorted(share, share[-1] / 2, side=side) for side in ("left", "right"))
    return float(ranked[low] + ranked[min(high, len(ranked) - 1)]) / 2
