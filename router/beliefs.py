"""How far each view of a request, and what an adapter was trained on, is believed: learnt where it was held out.

The gain of an adapter on a request is predicted as a weighed sum of what each view of the profiled kinds expects
(`kinds.py`) and of the evidence from its training rows. There is one weight for each of these and each class of
novelty, shared by all adapters, so that a newcomer needs no fit. Weights are not negative, and least squares finds
them, drawn towards usual ones: of a few kinds alone they cannot be learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .folds import FitData, Fold
from .guard import hedged
from .kinds import VIEWS
from .novelty import Novelty
from .training_profiles import KINDS, learnt

Array = NDArray[np.float64]
EVIDENCE = (*VIEWS, *KINDS)

USUAL: Array = np.array(
    [
        [0.0, 0.7, 0.15, 0.1, 0.0, 0.05],
        [0.3, 0.2, 0.2, 0.1, 0.1, 0.3],
        [0.5, 0.1, 0.1, 0.1, 0.2, 0.5],
    ]
)
"""Weights between those learnt by the strict and by the lenient score of 24 data sets, by hand, (classes, evidence)."""
PRIOR = 3.0
"""These count as much as so many groups."""


@dataclass(frozen=True)
class Played:
    """Requests held out in one class of novelty, and what they gained.

    `parts` (q, a, evidence) are those of the predicted gains, `base_views` (q, views) what each view expects of the
    base model's score, `likely` (q, classes) the classes of novelty, `gains` (q, a) what was measured, and `groups`
    (q,).
    """

    name: str
    parts: Array
    base_views: Array
    likely: Array
    gains: Array
    groups: NDArray[np.intp]

    @classmethod
    def of(cls, name: str, folds: Sequence[Fold], gains: Array, base: Array, at: FitData, novelty: Novelty) -> Self:
        """Put the folds of a class together, with the `gains` (n, a) and `base` scores (n,) of all requests."""
        rows = np.concatenate([fold.rows for fold in folds])
        return cls(
            name,
            np.concatenate([_parts(fold, gains) for fold in folds]),
            hedged(np.concatenate([fold.views(base[:, None])[..., 0] for fold in folds]), at.group_count),
            novelty.probabilities(np.concatenate([fold.measures for fold in folds])),
            gains[rows],
            at.groups[rows],
        )

    def predict(self, weights: Array) -> Array:
        """Predicted gains (q, a)."""
        return np.einsum("qe,qae->qa", self.likely @ weights, self.parts)

    def base(self, weights: Array) -> Array:
        """The base model's expected scores (q,)."""
        believed = (self.likely @ weights)[:, : len(VIEWS)]
        return (believed * self.base_views).sum(axis=1) / np.maximum(believed.sum(axis=1), 1e-9)


def _parts(fold: Fold, gains: Array) -> Array:
    """What each view and kind of evidence says of a fold's requests and adapters, (q, a, evidence)."""
    views = fold.views(gains).transpose(0, 2, 1)
    return np.concatenate([views, fold.evidence * learnt(fold.match, fold.means(gains))[:, None]], axis=2)


def fit_weights(played: Sequence[Played]) -> Array:
    """The weights (classes, evidence) of least squared error; groups count alike, and so do the classes played."""
    from scipy.optimize import nnls

    size = USUAL.size
    gram, moment = np.zeros((size, size)), np.zeros(size)
    for each in played:
        columns = np.einsum("qc,qae->qace", each.likely, each.parts).reshape(-1, size)
        # One each group, spread over its requests and the adapters.
        adapters = each.gains.shape[1]
        share = np.repeat(1 / (np.bincount(each.groups)[each.groups] * adapters), adapters)
        weighed = columns.T * share
        gram += weighed @ columns
        moment += weighed @ each.gains.ravel()
    groups = len({g for each in played for g in each.groups.tolist()})
    pull = PRIOR * max(float(np.diag(gram).mean()) / max(groups, 1), 1e-6)
    lower = np.linalg.cholesky(gram + pull * np.eye(size))
    return nnls(lower.T, np.linalg.solve(lower, moment + pull * USUAL.ravel()))[0].reshape(USUAL.shape)
