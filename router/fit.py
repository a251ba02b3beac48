"""Fit a routing profile from per-example outcomes.

The demand model learns from *per-example* gains, not from task labels, so that it carries over to tasks
nobody profiled. Everything that is chosen is chosen on requests that were not fitted on: the ridge penalty
on held-out requests of profiled tasks and on tasks left out alike, the number of components on the
former, and the caution on the latter (`caution.py`). With all `adapters - 1` components the trait form equals a
direct regression of the gains.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from .caution import CautionCurve, are_few
from .demand import DemandModel, predictions
from .folds import Arranged, FitRequests, Fold, unseen_mass
from .novelty import Novelty
from .profile import RoutingProfile
from .training_profiles import home_weights, worth_of

Array = NDArray[np.float64]
ALPHAS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


# Its matrices are small: on a machine that does other work too, threads that wait for each other take ten times as long.
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
    """Fit features, demand, error estimates and caution; `trait_scores` are all PCA scores, (adapters, r).

    `rank` components are kept, by default as many as predict held-out gains best; `risk` is the share of tasks left out that
    routing may harm.
    """
    at = Arranged.of(requests, random_state)
    gains = requests.gains
    unseen_known, unseen_new = unseen_mass(at.known), unseen_mass(at.new)
    novelty = Novelty.of(unseen_known, unseen_new)
    known = _held_out(at, at.known, gains, 1 - novelty.share(unseen_known))
    novel = novelty.share(unseen_new)
    new = _held_out(at, at.new, gains, 1 - novel)
    # Held-out requests of known tasks and new tasks count alike.
    errors = sum(np.mean((found - gains) ** 2, axis=(1, 2)) for found in (known, new))
    best = int(np.argmin(errors))
    alpha, on_known, on_new = ALPHAS[best], known[best], new[best]
    worth = home_weights(at.evidence, gains, at.tasks)
    rest = gains - worth_of(at.evidence, worth)
    rank = rank or _best_rank(on_known, gains, trait_scores, n_traits)
    scores = trait_scores[:, :rank]
    demand = np.hstack([to_demand(rest, scores), np.eye(len(at.names))[at.tasks]])
    profile = RoutingProfile(
        adapters=tuple(adapters),
        tasks=at.names,
        trait_scores=scores,
        residuals=np.zeros((len(adapters), len(at.names)), np.float32),
        n_traits=n_traits,
        features=at.features,
        demand=DemandModel(alpha).fit(at.rows, demand, at.weights),
        homes=at.homes,
        home_weights=worth,
        centroids=_means(at.rows, at.tasks),
        words=at.words,
        error_known=_task_error(on_known, gains, at.tasks),
        error_new=_task_error(on_new, gains, at.tasks),
        novelty=novelty,
        caution=0.0,
        caution_known=0.0,
        risk=risk,
        fitted_on=len(at.tasks),
    )
    few = are_few(int(at.groups.max()) + 1, risk)
    error = profile.error(novel) * (1.0 if few else novel)
    caution = CautionCurve.of(on_new, error, gains, at.groups).caution(risk)
    return replace(profile, caution=caution, caution_known=caution if few else 0.0)


def to_demand(gains: Array, trait_scores: Array) -> Array:
    """Split per-example gains (n, adapters) into mean gain and least-squares demand, (n, 1 + r)."""
    mean = gains.mean(axis=1, keepdims=True)
    return np.hstack([mean, (gains - mean) @ np.linalg.pinv(trait_scores).T])


def to_gains(demand: Array, trait_scores: Array) -> Array:
    """Predicted gains (n, adapters) of demands (n, 1 + r): `mean + trait_scores @ demand`."""
    return demand[:, :1] + demand[:, 1:] @ trait_scores.T


def _held_out(at: Arranged, folds: Sequence[Fold], gains: Array, trust: Array) -> Array:
    """Gains as models of each penalty predict them that did not see the request, (ALPHAS, n, adapters)."""
    predicted = np.empty((len(ALPHAS), *gains.shape))
    for fold in folds:
        inside = gains[fold.train]
        worth = home_weights(fold.evidence_train, inside, at.tasks[fold.train])
        rest = inside - worth_of(fold.evidence_train, worth)
        found = predictions(ALPHAS, fold.X_train, rest, at.weights[fold.train], fold.X_test)
        found *= trust[fold.test][:, None]
        predicted[:, fold.test] = found + worth_of(fold.evidence_test, worth)
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
