"""Fit a routing profile from per-example outcomes.

Everything that is learnt is learnt on requests that were held out (`folds.py`): how to tell a new request from a known
one, how far to believe each kind of evidence, how reliably each component of the demand is told, and how sure a gain
must be. It is learnt from *per-example* gains, not from task labels, so that it carries over to tasks nobody profiled.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from .beliefs import Played, fit_weights
from .folds import FitData, FitRequests, task_means
from .guard import LEAST_Z, RiskCurve
from .novelty import CLASSES, Novelty
from .profile import RoutingProfile
from .training_profiles import learnt

Array = NDArray[np.float64]


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
    data: FitData | None = None,
) -> RoutingProfile:
    """Fit features, kinds, novelty, beliefs and the margin of error; `trait_scores` are all PCA scores, (adapters, r).

    `rank` components are kept, by default all; `risk` is the share of groups left out that routing may harm. `data`
    are the same requests as prepared by `FitData.of`, where several scores of them are fitted.
    """
    at = data or FitData.of(requests, random_state)
    gains = requests.gains
    base = np.full(len(gains), 0.5) if requests.base is None else requests.base
    novelty = Novelty.of(
        {
            name: (np.concatenate([f.measures for f in folds]), at.groups[np.concatenate([f.rows for f in folds])])
            for name, folds in at.held_out.items()
        }
    )
    played = [Played.of(name, folds, gains, base, at, novelty) for name, folds in at.held_out.items()]
    weights = fit_weights(played)
    scores = trait_scores[:, : rank or trait_scores.shape[1]]
    means = task_means(gains, at.tasks)
    profile = RoutingProfile(
        adapters=tuple(adapters),
        tasks=at.names,
        trait_scores=scores,
        residuals=np.zeros((len(adapters), len(at.names)), np.float32),
        n_traits=n_traits,
        groups=at.group_count,
        features=at.features,
        kinds=at.kinds,
        demands=to_demand(means, scores),
        base=task_means(base[:, None], at.tasks)[:, 0],
        weights=weights,
        training=at.training,
        learnt=learnt(at.training.match_kinds(at.kinds), means),
        novelty=novelty,
        errors=_errors(played, weights),
        z=0.0,
        risk=risk,
        fitted_on=len(at.tasks),
    )
    count = at.group_count
    curves = [
        RiskCurve.of(p.predict(weights), profile.error(p.likely, p.base(weights)), p.gains, p.groups, count)
        for p in played
    ]
    return replace(profile, z=RiskCurve.joined(curves).best_z(risk)) if curves else replace(profile, z=LEAST_Z)


def to_demand(gains: Array, trait_scores: Array) -> Array:
    """Split gains (n, adapters) into mean gain and least-squares demand, (n, 1 + r)."""
    mean = gains.mean(axis=1, keepdims=True)
    return np.hstack([mean, (gains - mean) @ np.linalg.pinv(trait_scores).T])


def _errors(played: Sequence[Played], weights: Array) -> Array:
    """Root mean square errors of the mean gains predicted for groups, by class of novelty.

    A class that could not be played is as uncertain as those that could are on average.
    """
    found: dict[str, float] = {}
    for each in played:
        groups = np.unique(each.groups, return_inverse=True)[1]
        errors = task_means(each.predict(weights), groups) - task_means(each.gains, groups)
        found[each.name] = float(np.mean(errors**2))
    usual = float(np.mean(list(found.values()))) if found else 1.0
    return np.sqrt([found.get(name, usual) for name in CLASSES])
