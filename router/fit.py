"""Fit a routing profile from per-example outcomes.

The demand model learns from *per-example* gains, not from task labels, so that it carries over to tasks
nobody profiled. Two settings are chosen by cross-validation, on the fitting requests alone: the ridge
penalty and the number of components (never fewer than the traits above the null), both by the lowest
squared error of gains on held-out requests of profiled tasks. Tasks left out set the error instead: they
tell how far a prediction for an unfamiliar request can be off. With all `adapters - 1` components the
trait form equals a direct regression of the gains.
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


@dataclass(frozen=True)
class _Fold:
    """Rows to fit on and rows held out, with their features; `unseen` belongs to the rows held out."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    X_train: Array
    X_test: Array
    unseen: Array


@dataclass(frozen=True)
class _HeldOut:
    """What models that did not see a request say of it: gains (n, adapters) and ignorance (n,)."""

    gains: Array
    ignorance: Array


def fit_profile(
    adapters: Sequence[str],
    requests: FitRequests,
    trait_scores: Array,
    *,
    n_traits: int,
    random_state: int = 0,
) -> RoutingProfile:
    """Fit features, demand and error estimates; `trait_scores` are all PCA scores, (adapters, r)."""
    names = tuple(dict.fromkeys(requests.tasks))
    groups = np.array([names.index(t) for t in requests.tasks])
    known, new = (_folds(requests.texts, s, random_state) for s in _splits(groups, random_state))
    alpha = _best_alpha(known, requests.gains)
    on_known = _held_out(known, requests.gains, alpha)
    on_new = _held_out(new, requests.gains, alpha)
    rank = _best_rank(on_known.gains, requests.gains, trait_scores, n_traits)
    scores = trait_scores[:, :rank]
    features = RequestFeatures(random_state=random_state)
    X = features.fit_transform(list(requests.texts))
    return RoutingProfile(
        adapters=tuple(adapters),
        tasks=names,
        trait_scores=scores,
        n_traits=n_traits,
        features=features,
        demand=DemandModel(alpha).fit(X, to_demand(requests.gains, scores)),
        centroids=_means(X, groups),
        error_known=_task_error(on_known.gains, requests.gains, scores, groups),
        error_new=_task_error(on_new.gains, requests.gains, scores, groups),
        ignorance_known=float(on_known.ignorance.mean()),
        ignorance_new=float(on_new.ignorance.mean()),
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


def _folds(texts: Sequence[str], splits: list, random_state: int) -> list[_Fold]:
    """Features fitted anew for each split: held-out words must be as unseen as in a real request."""
    folds = []
    for train, test in splits:
        features = RequestFeatures(random_state=random_state)
        X_train = features.fit_transform([texts[int(i)] for i in train])
        X_test = features.transform([texts[int(i)] for i in test])
        folds.append(_Fold(train, test, X_train, X_test, features.unseen_mass(X_test)))
    return folds


def _held_out(folds: Sequence[_Fold], gains: Array, alpha: float) -> _HeldOut:
    predicted, ignorance = np.empty_like(gains), np.empty(len(gains))
    for fold in folds:
        model = DemandModel(alpha).fit(fold.X_train, gains[fold.train])
        predicted[fold.test] = model.predict(fold.X_test)
        ignorance[fold.test] = model.ignorance(fold.X_test, fold.unseen)
    return _HeldOut(predicted, ignorance)


def _best_alpha(known: Sequence[_Fold], gains: Array) -> float:
    def error(alpha: float) -> float:
        return float(np.mean((_held_out(known, gains, alpha).gains - gains) ** 2))

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
