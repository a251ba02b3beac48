"""Fit a routing profile from per-example outcomes.

Everything that is learnt is learnt on requests that were held out (`folds.py`): how far to believe each kind of
evidence, how wrong what nothing is known of may be, and how sure a gain must be. It is learnt from *per-example* gains,
not from task labels, so that it carries over to tasks nobody profiled.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from .beliefs import Played, fit_weights
from .everyday import losses_of
from .folds import FitData, FitRequests, task_means
from .guard import FEW_GROUPS_Z, Realised, smallest_z
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
    everyday_losses: Sequence[float | None] | None = None,
) -> RoutingProfile:
    """Fit features, kinds, beliefs and the margin of error; `trait_scores` are all PCA scores, (adapters, r).

    `rank` components are kept, by default all; `risk` is the share of groups left out that routing may harm. `data`
    are the same requests as prepared by `FitData.of`, where several scores of them are fitted. `everyday_losses` are
    what each adapter loses on everyday requests, in score points (None: not known).
    """
    at = data or FitData.of(requests, random_state)
    gains = requests.gains
    base = np.full(len(gains), 0.5) if requests.base is None else requests.base
    played = [Played.of(folds, gains, base, at) for folds in at.held_out.values()]
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
        everyday=at.everyday,
        training=at.training,
        learnt=learnt(at.training.match_kinds(at.kinds), means),
        everyday_losses=losses_of(everyday_losses or [None] * len(adapters)),
        error_unknown=_error_unknown(played, weights),
        z=FEW_GROUPS_Z,
        risk=risk,
        fitted_on=len(at.tasks),
    )
    if not played:
        return profile
    count = at.group_count
    ways = [
        Realised.of(
            each.predict(weights),
            profile.error(each.unknown, each.base(weights, count)),
            each.gains,
            each.groups,
            count=count,
            tests=count * len(played),
        )
        for each in played
    ]
    return replace(profile, z=smallest_z(ways, risk))


def to_demand(gains: Array, trait_scores: Array) -> Array:
    """Split gains (n, adapters) into mean gain and least-squares demand, (n, 1 + r)."""
    mean = gains.mean(axis=1, keepdims=True)
    return np.hstack([mean, (gains - mean) @ np.linalg.pinv(trait_scores).T])


def _error_unknown(played: Sequence[Played], weights: Array) -> float:
    """The root-mean-square error of a group's mean gains where nothing is known of them.

    Least squares of the squared errors of held-out groups on the share of the variance that was unknown.
    """
    errors, unknown = [], []
    for each in played:
        groups = np.unique(each.groups, return_inverse=True)[1]
        off = task_means(each.predict(weights), groups) - task_means(each.gains, groups)
        errors.append(np.mean(off**2, axis=1))
        unknown.append(task_means(each.unknown[:, None], groups)[:, 0])
    if not played:
        return 1.0
    share = np.concatenate(unknown)
    return float(np.sqrt(np.concatenate(errors) @ share / max(share @ share, 1e-9)))
