"""Fit a routing profile from per-example outcomes.

The demand model learns from *per-example* gains, not from task labels, so that it carries over to tasks
nobody profiled. Everything that is chosen is chosen on requests that were not fitted on: the ridge penalty
on held-out requests of profiled tasks and on tasks left out alike, the number of components on the
former, and the margin of error on the latter (`guard.py`). With all `adapters - 1` components the trait form equals a
direct regression of the gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from .folds import FitData, FitRequests, Fold, unseen_mass
from .guard import Novelty, RiskCurve, are_few
from .profile import Demand, RoutingProfile
from .training_profiles import evidence_gains, evidence_weights

Array = NDArray[np.float64]
ALPHAS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


# Its matrices are small: on a machine that does other work too, threads that wait for each other take ten times as
# long.
@threadpool_limits.wrap(limits=1, user_api="blas")
def fit_profile(
    adapters: Sequence[str],
    requests: FitRequests,
    trait_scores: Array,
    *,
    n_traits: int,
    rank: int | None = None,
    risk: float = 0.05,
    random_state: int = 0,
) -> RoutingProfile:
    """Fit features, demand, error estimates and the margin of error; `trait_scores` are all PCA scores, (adapters, r).

    `rank` components are kept, by default as many as predict held-out gains best; `risk` is the share of tasks left out
    that routing may harm.
    """
    at = FitData.of(requests, random_state)
    gains = requests.gains
    unseen_known, unseen_new = unseen_mass(at.known), unseen_mass(at.new)
    novelty = Novelty.of(unseen_known, unseen_new)
    known = _held_out(at, at.known, gains, 1 - novelty.probability(unseen_known))
    novel = novelty.probability(unseen_new)
    new = _held_out(at, at.new, gains, 1 - novel)
    # Held-out requests of known tasks and new tasks count alike.
    errors = sum(np.mean((predicted - gains) ** 2, axis=(1, 2)) for predicted in (known, new))
    best = int(np.argmin(errors))
    alpha, on_known, on_new = ALPHAS[best], known[best], new[best]
    weights = evidence_weights(at.evidence, gains, at.tasks)
    rest = gains - evidence_gains(at.evidence, weights)
    rank = rank or _best_rank(on_known, gains, trait_scores, n_traits)
    scores = trait_scores[:, :rank]
    demand = np.hstack([to_demand(rest, scores), np.eye(len(at.names))[at.tasks]])
    model = DemandModel(alpha).fit(at.rows, demand, at.weights)
    profile = RoutingProfile(
        adapters=tuple(adapters),
        tasks=at.names,
        trait_scores=scores,
        residuals=np.zeros((len(adapters), len(at.names)), np.float32),
        n_traits=n_traits,
        features=at.features,
        demand=Demand(model.coef_, model.intercept_, alpha),
        training=at.training,
        evidence_weights=weights,
        centroids=_means(at.rows, at.tasks),
        words=at.words,
        error_known=_task_error(on_known, gains, at.tasks),
        error_new=_task_error(on_new, gains, at.tasks),
        novelty=novelty,
        z_new=0.0,
        z_known=0.0,
        risk=risk,
        fitted_on=len(at.tasks),
    )
    few = are_few(int(at.groups.max()) + 1, risk)
    curve = RiskCurve.of(on_new, profile.error(novel) * (1.0 if few else novel), gains, at.groups)
    if few:
        error = profile.error(novelty.probability(unseen_known))
        curve = curve.beside(RiskCurve.of(on_known, error, gains, at.groups))
    z = curve.best_z(risk)
    return replace(profile, z_new=z, z_known=z if few else 0.0)


def to_demand(gains: Array, trait_scores: Array) -> Array:
    """Split per-example gains (n, adapters) into mean gain and least-squares demand, (n, 1 + r)."""
    mean = gains.mean(axis=1, keepdims=True)
    return np.hstack([mean, (gains - mean) @ np.linalg.pinv(trait_scores).T])


def to_gains(demand: Array, trait_scores: Array) -> Array:
    """Predicted gains (n, adapters) of demands (n, 1 + r): `mean + trait_scores @ demand`."""
    return demand[:, :1] + demand[:, 1:] @ trait_scores.T


def _held_out(at: FitData, folds: Sequence[Fold], gains: Array, trust: Array) -> Array:
    """Gains predicted by models of each penalty that were fitted without the request, (ALPHAS, n, adapters)."""
    predicted = np.empty((len(ALPHAS), *gains.shape))
    for fold in folds:
        inside = gains[fold.train]
        weights = evidence_weights(fold.evidence_train, inside, at.tasks[fold.train])
        rest = inside - evidence_gains(fold.evidence_train, weights)
        demanded = predictions(ALPHAS, fold.X_train, rest, at.weights[fold.train], fold.X_test)
        demanded *= trust[fold.test][:, None]
        predicted[:, fold.test] = demanded + evidence_gains(fold.evidence_test, weights)
    return predicted


def _best_rank(held_out: Array, gains: Array, trait_scores: Array, n_traits: int) -> int:
    """The number of components, `n_traits` or more, of least squared error."""

    def error(rank: int) -> float:
        scores = trait_scores[:, :rank]
        return float(np.mean((to_gains(to_demand(held_out, scores), scores) - gains) ** 2))

    return min(range(n_traits, trait_scores.shape[1] + 1), key=error)


def _task_error(held_out: Array, gains: Array, tasks: NDArray[np.intp]) -> float:
    return float(np.sqrt(np.mean((_means(held_out, tasks) - _means(gains, tasks)) ** 2)))


def _means(values: Array, groups: NDArray[np.intp]) -> Array:
    return np.array([values[groups == g].mean(axis=0) for g in range(groups.max() + 1)])


@dataclass(frozen=True)
class _Centered:
    """Weighted means of features (p,) and targets (outputs,), and the moments about them."""

    center: Array
    mean: Array
    gram: Array
    moment: Array

    @classmethod
    def of(cls, rows: Array, targets: Array, weights: Array) -> Self:
        center = np.average(rows, axis=0, weights=weights)
        mean = np.average(targets, axis=0, weights=weights)
        centered = rows - center
        weighted = centered.T * weights
        return cls(center, mean, weighted @ centered, weighted @ (targets - mean))


def predictions(alphas: Sequence[float], rows: Array, targets: Array, weights: Array, new: Array) -> Array:
    """Predictions for `new` (m, p) of a `DemandModel` of each penalty fitted to `rows` (n, p), (alphas, m, outputs).

    One decomposition serves all penalties.
    """
    centered = _Centered.of(rows, targets, weights)
    values, axes = np.linalg.eigh(centered.gram)
    seen, moment = (new - centered.center) @ axes, axes.T @ centered.moment
    return np.stack([(seen / (values + a)) @ moment + centered.mean for a in alphas])


class DemandModel(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression from features to (mean gain, demand).

    Learns `coef_` (p, outputs) and `intercept_` (outputs,).
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit features `X` (n, p) to targets `y` (n, outputs) or (n,), rows weighted by `sample_weight` (n,)."""
        rows, targets = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        weights = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        centered = _Centered.of(rows, targets, weights)
        gram = centered.gram + self.alpha * np.eye(rows.shape[1])
        self.coef_: Array = np.linalg.solve(gram, centered.moment).astype(np.float64)
        self.intercept_ = centered.mean - centered.center @ self.coef_
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Return predicted targets, shape (n, outputs) or (n,)."""
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        return rows @ self.coef_ + self.intercept_
