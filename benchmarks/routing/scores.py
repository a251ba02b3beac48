"""How well a choice of adapters did: against the best adapter of each task, and against the base model.

Arithmetic only. `scores` (n, 1 + a) are a score of every column on every request, column 0 the base model;
`choice` (n,) is the column chosen; `tasks` (n,) says which task a request is of.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SPLITS = 50
DRAWS = 2000


@dataclass(frozen=True)
class TaskScores:
    """Means a task, each (tasks,): what was achieved, by base, and by the best column of the task.

    `best` is cross-fitted: the column is chosen on one half of the task's examples and scored on the other, both
    ways, over many splits. `naive` is the plain maximum of the means, inflated by selection.
    """

    names: tuple[str, ...]
    achieved: Array
    base: Array
    best: Array
    naive: Array
    below: NDArray[np.bool_]
    agreement: Array


@dataclass(frozen=True)
class Reference:
    """What does not depend on the choice; see `TaskScores`."""

    names: tuple[str, ...]
    members: tuple[NDArray[np.intp], ...]
    best: Array
    naive: Array


@dataclass(frozen=True)
class Interval:
    """An estimate with the 95% interval of a bootstrap over tasks."""

    value: float
    low: float
    high: float


def reference(scores: Array, tasks: NDArray[np.str_]) -> Reference:
    """The cross-fitted and the naive best column of each task."""
    names = tuple(dict.fromkeys(tasks.tolist()))
    members = tuple(np.flatnonzero(tasks == name) for name in names)
    best = np.array([cross_fitted_best(scores[m]) for m in members])
    naive = np.array([scores[m].mean(axis=0).max() for m in members])
    return Reference(names, members, best, naive)


def cross_fitted_best(scores: Array, *, seed: int = 0) -> float:
    """Mean score of the column chosen on one half of the rows, on the other half; ties count alike."""
    rng = np.random.default_rng(seed)
    n = len(scores)
    found = []
    for _ in range(SPLITS):
        order = rng.permutation(n)
        for chosen_on, scored_on in (
            (order[: n // 2], order[n // 2 :]),
            (order[n // 2 :], order[: n // 2]),
        ):
            means = scores[chosen_on].mean(axis=0)
            tied = np.flatnonzero(means >= means.max() - 1e-12)
            found.append(scores[scored_on][:, tied].mean())
    return float(np.mean(found))


def task_scores(scores: Array, choice: NDArray[np.intp], against: Reference) -> TaskScores:
    """Score `choice` task by task."""
    rows = np.arange(len(scores))
    got, base = scores[rows, choice], scores[:, 0]
    agree = []
    for m in against.members:
        means = scores[m].mean(axis=0)
        agree.append(np.isin(choice[m], np.flatnonzero(means >= means.max() - 1e-12)).mean())
    return TaskScores(
        names=against.names,
        achieved=np.array([got[m].mean() for m in against.members]),
        base=np.array([base[m].mean() for m in against.members]),
        best=against.best,
        naive=against.naive,
        below=np.array([surely_below((got - base)[m]) for m in against.members]),
        agreement=np.array(agree),
    )


def surely_below(differences: Array, *, seed: int = 0) -> bool:
    """Whether the 95% interval of a paired bootstrap lies below zero."""
    if not differences.any():
        return False
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(differences), (DRAWS, len(differences)))
    return bool(np.quantile(differences[draws].mean(axis=1), 0.975) < 0)


def summary(found: TaskScores) -> dict[str, Any]:
    """The figures of one router under one protocol, as in the JSON of the benchmark."""
    regret = found.best - found.achieved
    ratios = {
        "pct_of_best": _ratio(found.achieved, found.best),
        "pct_of_naive_best": _ratio(found.achieved, found.naive),
        "gain_recovered": _ratio(found.achieved - found.base, found.best - found.base),
    }
    return {
        **{name: r.value for name, r in ratios.items()},
        **{f"{name}_ci": [r.low, r.high] for name, r in ratios.items()},
        "mean_score": float(found.achieved.mean()),
        "tasks_below_base": int(found.below.sum()),
        "tasks": len(found.names),
        "top1_agreement": float(found.agreement.mean()),
        "regret": {name: float(np.quantile(regret, q)) for name, q in (("median", 0.5), ("p90", 0.9), ("max", 1.0))},
        "by_task": {
            n: {"achieved": float(a), "base": float(b), "best": float(r)}
            for n, a, b, r in zip(found.names, found.achieved, found.base, found.best, strict=True)
        },
    }


def _ratio(above: Array, below: Array, *, seed: int = 0) -> Interval:
    """100 * sum(above) / sum(below), with its interval over tasks; NaN where there is nothing below."""
    if abs(below.sum()) < 1e-9:
        return Interval(*[float("nan")] * 3)
    draws = np.random.default_rng(seed).integers(0, len(above), (DRAWS, len(above)))
    totals = below[draws].sum(axis=1)
    usable = np.abs(totals) > 1e-9
    ratios = 100 * above[draws].sum(axis=1)[usable] / totals[usable]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(float(100 * above.sum() / below.sum()), float(low), float(high))


def paired_p(ours: Array, theirs: Array, *, seed: int = 0) -> float:
    """One-sided p-value that `ours` is better over tasks, by random sign flips of the differences."""
    differences = ours - theirs
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (9999, len(differences)))
    null = (signs * differences).mean(axis=1)
    return float((1 + (null >= differences.mean() - 1e-12).sum()) / (1 + len(null)))


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
