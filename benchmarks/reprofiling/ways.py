"""Ways to place a new adapter with few examples: which to measure, and what they say of the whole row.

Examples are chosen by outcomes of base and of the other adapters alone. The last two ways are the product's own
`TaskAnchors` and `AnchorRow`; the others are what they were chosen against.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.cluster import KMeans
from traitroute.profiling.matrix.anchors import AnchorRow, RowEstimate, TaskAnchors, rounds

from .left_out import Array, LeftOut, Rows


@dataclass(frozen=True)
class Estimated:
    """The rows that were measured, and the gains (tasks,) they say, NaN where nothing is said, with standard errors."""

    rows: Rows
    gains: Array
    errors: Array


@dataclass(frozen=True)
class Way:
    """A way to estimate a row; `by_chance` where runs differ, `stops` where it knows its own error."""

    estimate: Callable[..., Estimated]
    by_chance: bool = False
    stops: bool = False
    tolerance: float | None = None

    def __call__(self, case: LeftOut, share: float, seed: int) -> Estimated:
        more = {} if self.tolerance is None else {"tolerance": self.tolerance}
        return self.estimate(case, share, seed, **more)

    def until(self, tolerance: float) -> "Way":
        """The same, which stops where the mean standard error of its gains is as small as this."""
        return replace(self, tolerance=tolerance)


def _spread_evenly(case: LeftOut, orders: list[Rows], share: float, seed: int) -> Rows:
    """The first of each task's `orders`, as many of each task in proportion, rounded by chance."""
    rng = np.random.default_rng(seed)
    place = np.empty(case.size)
    for members, order in zip(case.members, orders, strict=True):
        place[members[order]] = (np.arange(len(order)) + rng.random()) / len(order)
    return np.argsort(place)[: round(share * case.size)]


def _shuffled(case: LeftOut, seed: int) -> list[Rows]:
    rng = np.random.default_rng(100 + seed)
    return [rng.permutation(len(members)) for members in case.members]


def random_means(case: LeftOut, share: float, seed: int) -> Estimated:
    """As many random examples of each task; a task's mean, and nothing where there is none."""
    rows = _spread_evenly(case, _shuffled(case, seed), share, seed)
    tried = np.bincount(case.task[rows], minlength=len(case.gains))
    right = np.bincount(case.task[rows], case.own[rows], minlength=len(case.gains))
    with np.errstate(invalid="ignore"):
        mean = right / tried
        error = np.sqrt(mean * (1 - mean) / tried)
    return Estimated(rows, mean - case.base, np.nan_to_num(error))


def clusters(case: LeftOut, share: float, seed: int) -> Estimated:
    """tinyBenchmarks (arXiv 2402.14992): the examples nearest to the centres of clusters of outcomes, weighed by
    their size.
    """
    rows, means = [], []
    for members in case.members:
        k = max(1, round(share * len(members)))
        columns = np.hstack([case.known[members], _standardised(case.marks[members])])
        distinct = len(np.unique(columns, axis=0))
        found = KMeans(min(k, distinct), n_init=3, random_state=seed).fit(columns)
        nearest = found.transform(columns).argmin(axis=0)
        weights = np.bincount(found.labels_, minlength=len(nearest)) / len(members)
        rows.append(members[nearest])
        means.append(weights @ case.own[members[nearest]])
    return Estimated(np.concatenate(rows), np.array(means) - case.base, np.zeros(len(means)))


def item_response(case: LeftOut, share: float, seed: int) -> Estimated:
    """A two-parameter item response model; the examples of most information at the known adapters' abilities."""
    slope, offset, abilities = _fit_2pl(case)
    chance = expit(offset[:, None] + slope[:, None] * abilities)
    information = (slope[:, None] ** 2 * chance * (1 - chance)).mean(axis=1)
    orders = [np.argsort(-information[members], kind="stable") for members in case.members]
    rows = _spread_evenly(case, orders, share, seed)

    def loss(ability: Array) -> float:
        z = offset[rows] + slope[rows] * ability[0]
        return float((np.logaddexp(0, z) - case.own[rows] * z).sum() + ability[0] ** 2 / 2)

    ability = minimize(loss, np.zeros(1), method="BFGS").x[0]
    expected = expit(offset + slope * ability)
    expected[rows] = case.own[rows]
    return Estimated(rows, case.means(expected) - case.base, np.zeros(len(case.gains)))


@lru_cache(maxsize=32)
def _fit_2pl(case: LeftOut) -> tuple[Array, Array, Array]:
    """Slopes (n,), offsets (n,) and abilities (known,) of greatest posterior density."""
    right = case.known
    n = len(right)

    def loss(x: Array) -> tuple[float, Array]:
        slope, offset, ability = x[:n], x[n : 2 * n], x[2 * n :]
        z = offset[:, None] + slope[:, None] * ability
        off = expit(z) - right
        value = (np.logaddexp(0, z) - right * z).sum() + ((slope - 1) ** 2).sum() / 2
        value += (offset**2).sum() / 18 + (ability**2).sum() / 2
        gradient = [(off * ability).sum(axis=1) + slope - 1, off.sum(axis=1) + offset / 9]
        return float(value), np.concatenate([*gradient, (off * slope[:, None]).sum(axis=0) + ability])

    start = np.concatenate([np.ones(n), np.zeros(n), _standardised(right.mean(axis=0)[:, None])[:, 0]])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found[:n], found[n : 2 * n], found[2 * n :]


def d_optimal(case: LeftOut, share: float, seed: int) -> Estimated:
    """A D-optimal design for trait scores on the loadings of single examples; scores by ridge, gains by these."""
    order, loadings, means, prior = _design(case)
    rows = order[: round(share * case.size)]
    seen, gain = loadings[rows], (case.own - case.known[:, 0] - means)[rows]
    precision = seen.T @ seen / 0.1 + np.diag(1 / prior)
    scores = np.linalg.solve(precision, seen.T @ gain / 0.1)
    gains = case.traits.inverse_transform(scores[None])[0]
    return Estimated(rows, gains, np.zeros(len(gains)))


@lru_cache(maxsize=32)
def _design(case: LeftOut) -> tuple[Rows, Array, Array, Array]:
    gains = case.known[:, 1:] - case.known[:, :1]
    by_task = np.array([case.means(column) for column in gains.T])
    scores = case.traits.transform(by_task)
    means = gains.mean(axis=1)
    loadings = (np.linalg.pinv(scores) @ (gains - means[:, None]).T).T
    prior = np.maximum(scores.var(axis=0), 1e-4)
    covariance = np.diag(prior)
    open_ = np.ones(case.size, dtype=bool)
    order = []
    for _ in range(case.size // 2):
        worth = np.einsum("ij,jk,ik->i", loadings, covariance, loadings)
        best = int(np.where(open_, worth, -1).argmax())
        open_[best] = False
        order.append(best)
        moved = covariance @ loadings[best]
        covariance -= np.outer(moved, moved) / (0.1 + loadings[best] @ moved)
    return np.array(order), loadings, means, prior


def random_predicted(case: LeftOut, share: float, seed: int) -> Estimated:
    """Random examples, as many of each task, and ours' prediction of the others."""
    return _predicted(case, _spread_evenly(case, _shuffled(case, seed), share, seed))


def anchors_evenly(case: LeftOut, share: float, seed: int) -> Estimated:
    """Ours' anchors, as many of each task."""
    return _predicted(case, _spread_evenly(case, [a.order for a in _anchors(case)], share, seed))


def anchors_fixed(case: LeftOut, share: float, seed: int) -> Estimated:
    """Ours' anchors, more of them where the known adapters' scores vary: nothing depends on the new adapter's
    answers.
    """
    row = AnchorRow(_anchors(case))
    return _predicted(
        case,
        np.concatenate([case.members[t][p] for t, p in row.next(round(share * case.size)).items()]),
    )


def anchors_in_rounds(case: LeftOut, share: float, seed: int, *, tolerance: float = 0.0) -> Estimated:
    """Ours: anchors, each round of them where the earlier ones left most doubt."""
    return _in_rounds(case, _anchors(case), share, tolerance)


def own_likelihoods(case: LeftOut, share: float, seed: int) -> Estimated:
    """Ours, with the likelihoods of the new adapter's own gold answers on *all* examples, which costs reading every
    prompt.
    """
    return _in_rounds(case, _anchors(case, own=True), share, 0.0)


@lru_cache(maxsize=64)
def _anchors(case: LeftOut, own: bool = False) -> tuple[TaskAnchors, ...]:
    known = case.known.shape[1]
    marks = np.hstack([case.marks, *[case.own_marks] * (known if own else 0)])
    return tuple(TaskAnchors.of(case.known[m], marks[m]) for m in case.members)


def _in_rounds(case: LeftOut, anchors: tuple[TaskAnchors, ...], share: float, tolerance: float) -> Estimated:
    row = AnchorRow(anchors)
    for upto in rounds(case.size, 0, share):
        for task, places in row.next(int(upto) - row.done).items():
            row.add(task, places, case.own[case.members[task][places]])
        if tolerance and row.estimate().error <= tolerance:
            break
    rows = [case.members[task][places] for task, (places, _) in row.measured.items()]
    return _estimated(case, np.concatenate(rows), row.estimate())


def _predicted(case: LeftOut, rows: Rows) -> Estimated:
    row = AnchorRow(_anchors(case))
    for task, members in enumerate(case.members):
        places = np.flatnonzero(np.isin(members, rows))
        row.add(task, places, case.own[members[places]])
    return _estimated(case, rows, row.estimate())


def _estimated(case: LeftOut, rows: Rows, found: RowEstimate) -> Estimated:
    return Estimated(rows, found.scores - case.base, found.errors)


def _again(case: LeftOut, share: float, seed: int) -> Estimated:
    """The whole row on examples drawn anew from its own: what measuring on other examples of the same tasks would
    change.
    """
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(members, len(members)) for members in case.members])
    return Estimated(rows, case.means((case.own - case.known[:, 0])[rows]), np.zeros(len(case.gains)))


def _standardised(columns: NDArray[Any]) -> Array:
    spread = columns.std(axis=0)
    return (columns - columns.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)


whole_row_again = Way(_again, by_chance=True)
WAYS = {
    "random": Way(random_means, by_chance=True),
    "clusters (tinyBenchmarks)": Way(clusters, by_chance=True),
    "item response (2PL)": Way(item_response),
    "D-optimal on loadings": Way(d_optimal),
    "random, the rest predicted": Way(random_predicted, by_chance=True),
    "anchors, evenly": Way(anchors_evenly),
    "anchors, fixed numbers": Way(anchors_fixed),
    "anchors + own likelihoods of all": Way(own_likelihoods),
    "anchors in rounds (ours)": Way(anchors_in_rounds, stops=True),
}
