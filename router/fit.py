"""Fit a routing profile from per-example outcomes.

The demand model learns from *per-example* gains, not from task labels, so that it carries over to tasks
nobody profiled. Two settings are chosen by cross-validation, on the fitting requests alone: the ridge
penalty (lowest squared error of gains, held-out requests and held-out tasks counting equally) and the
number of components (lowest squared error on held-out requests, never fewer than the traits above the
null). With all `adapters - 1` components the trait form equals a direct regression of the gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, LeaveOneGroupOut

from .demand import DemandModel
from .features import RequestFeatures
from .profile import RoutingProfile

Array = NDArray[np.float64]
ALPHAS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class FitRequests:
    """Measured requests: `texts` and task names of length n, `gains` of shape (n, adapters) in [-1, 1]."""

    texts: Sequence[str]
    tasks: Sequence[str]
    gains: Array


def fit_profile(
    adapters: Sequence[str],
    requests: FitRequests,
    trait_scores: Array,
    *,
    n_traits: int,
    random_state: int = 0,
) -> RoutingProfile:
    """Fit features, demand and error estimates; `trait_scores` are all PCA scores, (adapters, r)."""
    features = RequestFeatures(random_state=random_state)
    X = features.fit_transform(list(requests.texts))
    names = tuple(dict.fromkeys(requests.tasks))
    groups = np.array([names.index(t) for t in requests.tasks])
    known, new = _splits(groups, random_state)
    alpha = _best_alpha(X, requests.gains, known, new)
    held_out = _held_out(X, requests.gains, alpha, known)
    rank = _best_rank(held_out, requests.gains, trait_scores, n_traits)
    scores = trait_scores[:, :rank]
    demand = DemandModel(alpha).fit(X, to_demand(requests.gains, scores))
    return RoutingProfile(
        adapters=tuple(adapters),
        tasks=names,
        trait_scores=scores,
        n_traits=n_traits,
        features=features,
        demand=demand,
        centroids=_means(X, groups),
        error_known=_task_error(held_out, requests.gains, scores, groups),
        error_new=_task_error(
            _held_out(X, requests.gains, alpha, new), requests.gains, scores, groups
        ),
        fitted_on=len(X),
    )


def to_demand(gains: Array, trait_scores: Array) -> Array:
    """Split per-example gains (n, adapters) into mean gain and least-squares demand, (n, 1 + r)."""
    mean = gains.mean(axis=1, keepdims=True)
    return np.hstack([mean, (gains - mean) @ np.linalg.pinv(trait_scores).T])


def to_gains(demand: Array, trait_scores: Array) -> Array:
    """Predicted gains (n, adapters) of demands (n, 1 + r): `mean + trait_scores @ demand`."""
    return demand[:, :1] + demand[:, 1:] @ trait_scores.T


def _splits(groups: NDArray[np.intp], random_state: int) -> tuple[list, list]:
    rows = np.arange(len(groups))
    known = list(KFold(min(5, len(rows)), shuffle=True, random_state=random_state).split(rows))
    new = list(LeaveOneGroupOut().split(rows, groups=groups)) if groups.max() > 1 else known
    return known, new


def _held_out(X: Array, gains: Array, alpha: float, splits: list) -> Array:
    """Predict the gains of every request by models that did not see it, shape (n, adapters)."""
    predicted = np.empty_like(gains)
    for train, test in splits:
        predicted[test] = DemandModel(alpha).fit(X[train], gains[train]).predict(X[test])
    return predicted


def _best_alpha(X: Array, gains: Array, known: list, new: list) -> float:
    def error(alpha: float) -> float:
        parts = [_held_out(X, gains, alpha, splits) - gains for splits in (known, new)]
        return float(sum(np.mean(p**2) for p in parts))

    return min(ALPHAS, key=error)


def _best_rank(held_out: Array, gains: Array, trait_scores: Array, n_traits: int) -> int:
    def error(rank: int) -> float:
        scores = trait_scores[:, :rank]
        return float(np.mean((to_gains(to_demand(held_out, scores), scores) - gains) ** 2))

    return min(range(n_traits, trait_scores.shape[1] + 1), key=error)


def _task_error(held_out: Array, gains: Array, scores: Array, groups: NDArray[np.intp]) -> float:
    predicted = to_gains(to_demand(held_out, scores), scores)
    return float(np.sqrt(np.mean((_means(predicted, groups) - _means(gains, groups)) ** 2)))


def _means(values: Array, groups: NDArray[np.intp]) -> Array:
    return np.array([values[groups == g].mean(axis=0) for g in range(groups.max() + 1)])
