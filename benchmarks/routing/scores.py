"""How well a choice of adapters did: against the best adapter of each data set, and against the base model.

Arithmetic only. `scores` (n, 1 + a) are a score of every column on every request, column 0 the base model; `choice`
(n,) is the column chosen. Figures are means over data sets, each counting alike whatever its group. Data sets of a
group are not independent, so intervals and tests are over groups: they are drawn, and their signs flipped, whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, sqrt
from typing import Any

import numpy as np
from interval import Interval
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
SPLITS = 50
DRAWS = 2000
FLIPS = 9999
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Reference:
    """The requests scored, and what does not depend on the choice.

    `members` are the requests of each data set and `groups` (d,) its group; `items` (n,) tells which requests are one
    item. `best` (d,) is cross-fitted: the column is chosen on one half of the data set's requests and scored on the
    other, both ways, over many splits. `naive` (d,) is the plain maximum of the means, inflated by selection.
    """

    names: tuple[str, ...]
    groups: NDArray[np.str_]
    members: tuple[Rows, ...]
    items: NDArray[np.uint64]
    best: Array
    naive: Array

    @property
    def group_names(self) -> tuple[str, ...]:
        """The groups, in their order."""
        return tuple(dict.fromkeys(self.groups.tolist()))

    def by_group(self, values: Array) -> Array:
        """Sums of `values` (d,) over the data sets of each group, (groups,)."""
        return np.array([values[self.groups == g].sum() for g in self.group_names])


@dataclass(frozen=True, eq=False)
class DataSetScores:
    """Means a data set, each (d,), and for each group how sure it is that the choice did worse than base, (groups,)."""

    against: Reference
    achieved: Array
    base: Array
    agreement: Array
    worse: Array


def reference(
    scores: Array, datasets: NDArray[np.str_], groups: NDArray[np.str_], items: NDArray[np.uint64], rows: Rows
) -> Reference:
    """Cross-fitted and naive best of each data set; a request that is asked several times, of one of `rows`, counts
    once in these.
    """
    names = tuple(dict.fromkeys(datasets.tolist()))
    members = tuple(np.flatnonzero(datasets == name) for name in names)
    distinct = [scores[m[np.unique(rows[m], return_index=True)[1]]] for m in members]
    return Reference(
        names=names,
        groups=np.array([groups[m[0]] for m in members]),
        members=members,
        items=items,
        best=np.array([cross_fitted_best(s) for s in distinct]),
        naive=np.array([s.mean(axis=0).max() for s in distinct]),
    )


def cross_fitted_best(scores: Array, *, seed: int = 0) -> float:
    """Mean score of the column chosen on one half of the rows, on the other half; ties count alike."""
    n = len(scores)
    if n < 2:
        return float(scores.max(axis=1).mean())
    half = np.random.default_rng(seed).permuted(np.tile(np.arange(n) < n // 2, (SPLITS, 1)), axis=1)
    one, other = half @ scores / half.sum(axis=1)[:, None], ~half @ scores / (~half).sum(axis=1)[:, None]
    return float(np.mean([_of_chosen(one, other), _of_chosen(other, one)]))


def _of_chosen(chosen_on: Array, scored_on: Array) -> float:
    tied = chosen_on >= chosen_on.max(axis=1, keepdims=True) - 1e-12
    return float(((scored_on * tied).sum(axis=1) / tied.sum(axis=1)).mean())


def data_set_scores(scores: Array, choice: Rows, against: Reference) -> DataSetScores:
    """Score `choice` data set by data set."""
    got, base = scores[np.arange(len(scores)), choice], scores[:, 0]
    agree = []
    for m in against.members:
        means = scores[m].mean(axis=0)
        agree.append(np.isin(choice[m], np.flatnonzero(means >= means.max() - 1e-12)).mean())
    return DataSetScores(
        against=against,
        achieved=np.array([got[m].mean() for m in against.members]),
        base=np.array([base[m].mean() for m in against.members]),
        agreement=np.array(agree),
        worse=_surely_worse(got - base, against),
    )


def _surely_worse(differences: Array, against: Reference) -> Array:
    """One-sided p-values, (groups,), that a group's mean difference is below 0, paired by items."""
    found = []
    for group in against.group_names:
        rows = np.concatenate([m for m, g in zip(against.members, against.groups, strict=True) if g == group])
        _, item = np.unique(against.items[rows], return_inverse=True)
        found.append(sign_flip_p(-np.bincount(item, differences[rows]) / np.bincount(item)))
    return np.array(found)


def sign_flip_p(differences: Array, *, seed: int = 0) -> float:
    """One-sided p-value that the mean of `differences` (n,) is above 0: exact of few, drawn of many."""
    d = differences[differences != 0]
    z = d.sum() / max(float(np.sqrt((d * d).sum())), 1e-12)
    if z < 1:
        return 1 - _normal(z)
    if len(d) <= 13:
        signs = 1 - 2.0 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
        return float((signs @ d >= d.sum() - 1e-9).mean())
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), (FLIPS, len(d)))
    return float((1 + (signs @ d >= d.sum() - 1e-9).sum()) / (1 + FLIPS))


def _normal(z: float) -> float:
    return 0.5 * (1 + erf(z / sqrt(2)))


def holm(p_values: Array, level: float = LEVEL) -> NDArray[np.bool_]:
    """Which of several hypotheses are rejected while the chance that any is so wrongly stays below `level`, (n,)."""
    order = np.argsort(p_values, kind="stable")
    passed = p_values[order] <= level / np.arange(len(p_values), 0, -1)
    rejected = np.zeros(len(p_values), bool)
    rejected[order[np.logical_and.accumulate(passed)]] = True
    return rejected


def summary(found: DataSetScores) -> dict[str, Any]:
    """The figures of one router under one protocol and score, as in the JSON of the benchmark."""
    against = found.against
    regret = against.best - found.achieved
    ratios = {
        "pct_of_best": _ratio(found.achieved, against.best, against),
        "gain_recovered": _ratio(found.achieved - found.base, against.best - found.base, against),
    }
    below = [g for g, is_below in zip(against.group_names, holm(found.worse), strict=True) if is_below]
    return {
        **{name: r.value for name, r in ratios.items()},
        **{f"{name}_ci": [r.low, r.high] for name, r in ratios.items()},
        "pct_of_naive_best": 100 * float(found.achieved.sum() / max(against.naive.sum(), 1e-9)),
        "mean_score": float(found.achieved.mean()),
        "groups_below_base": len(below),
        "below_base": below,
        "groups": len(against.group_names),
        "datasets": len(against.names),
        "top1_agreement": float(found.agreement.mean()),
        "regret": {name: float(np.quantile(regret, q)) for name, q in (("median", 0.5), ("p90", 0.9), ("max", 1.0))},
        "by_dataset": {
            name: {"achieved": round(float(a), 4), "base": round(float(b), 4), "best": round(float(r), 4)}
            for name, a, b, r in zip(against.names, found.achieved, found.base, against.best, strict=True)
        },
    }


def _ratio(above: Array, below: Array, against: Reference, *, seed: int = 0) -> Interval:
    """100 * sum(above) / sum(below) over data sets, with its interval over groups; NaN where nothing is below."""
    if abs(below.sum()) < 1e-9:
        return Interval(*[float("nan")] * 3)
    over, under = against.by_group(above), against.by_group(below)
    draws = np.random.default_rng(seed).integers(0, len(over), (DRAWS, len(over)))
    totals = under[draws].sum(axis=1)
    usable = np.abs(totals) > 1e-9
    return Interval.of(100 * above.sum() / below.sum(), 100 * over[draws].sum(axis=1)[usable] / totals[usable])


def leads(ours: DataSetScores, theirs: DataSetScores) -> dict[str, float]:
    """By how many points of the best `ours` is ahead; each group's share in these, so that they add up."""
    against = ours.against
    shares = 100 * against.by_group(ours.achieved - theirs.achieved) / max(against.best.sum(), 1e-9)
    return dict(zip(against.group_names, shares.tolist(), strict=True))


def ahead_p(found: Sequence[dict[str, float]]) -> float:
    """One-sided p-value that the mean of leads (see `leads`) is above 0, flipping each group's sign throughout."""
    names = dict.fromkeys(name for lead in found for name in lead)
    return sign_flip_p(np.array([sum(lead.get(name, 0.0) for lead in found) for name in names]))


def reliability(predicted: Array, realised: Array, *, bins: int = 10) -> list[dict[str, float]]:
    """The reliability curve: mean predicted and realised gain in bins of equal size."""
    order = np.argsort(predicted, kind="stable")
    return [
        {
            "predicted": float(predicted[part].mean()),
            "realised": float(realised[part].mean()),
            "n": len(part),
        }
        for part in np.array_split(order, bins)
        if len(part)
    ]
