"""How far each kind of evidence is believed: learnt where it was held out.

The gain of an adapter on a request is a weighed sum of what it gains in general, of how kinds that are near differ from
that (`kinds.py`), and of the evidence from its training rows. The weights are shared by all adapters, so that a
newcomer needs no fit. They are not negative, and least squares finds them, drawn towards usual ones: of a few kinds
alone they cannot be learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .folds import FitData, Fold
from .guard import expected_base
from .kinds import VIEWS
from .training_profiles import KINDS, learnt

Array = NDArray[np.float64]
EVIDENCE = (*VIEWS, *KINDS)

USUAL: Array = np.array([0.6, 1.0, 0.1, 0.3])
"""Weights between those learnt of two tables of outcomes, by hand, (evidence,)."""
PRIOR = 3.0
"""These count as much as so many groups."""


@dataclass(frozen=True)
class Played:
    """Requests held out in one way, and what they gained.

    `parts` (q, a, evidence) are those of the predicted gains, `base_views` (q, views) what each view says of the base
    model's score, `unknown` (q,) the share of the variance that kinds leave unexplained, `gains` (q, a) what was
    measured, and `groups` (q,).
    """

    parts: Array
    base_views: Array
    unknown: Array
    gains: Array
    groups: NDArray[np.intp]

    @classmethod
    def of(cls, folds: Sequence[Fold], gains: Array, base: Array, at: FitData) -> Self:
        """Put the folds of one way together, with the `gains` (n, a) and `base` scores (n,) of all requests."""
        rows = np.concatenate([fold.rows for fold in folds])
        return cls(
            np.concatenate([_parts(fold, gains) for fold in folds]),
            np.concatenate([fold.views(base[:, None])[..., 0] for fold in folds]),
            np.concatenate([fold.unknown for fold in folds]),
            gains[rows],
            at.groups[rows],
        )

    def predict(self, weights: Array) -> Array:
        """Predicted gains (q, a)."""
        return self.parts @ weights

    def base(self, weights: Array, groups: int) -> Array:
        """The base model's expected scores (q,), so many `groups` being profiled."""
        return expected_base(self.base_views, weights, groups)


def _parts(fold: Fold, gains: Array) -> Array:
    """What each kind of evidence says of a fold's requests and adapters, (q, a, evidence)."""
    views = fold.views(gains).transpose(0, 2, 1)
    return np.concatenate([views, fold.evidence * learnt(fold.match, fold.means(gains))[:, None]], axis=2)


def fit_weights(played: Sequence[Played]) -> Array:
    """The weights (evidence,) of least squared error; groups count alike, and so do the ways of holding out."""
    from scipy.optimize import nnls

    size = len(USUAL)
    gram, moment = np.zeros((size, size)), np.zeros(size)
    for each in played:
        columns = each.parts.reshape(-1, size)
        # One each group, spread over its requests and the adapters.
        adapters = each.gains.shape[1]
        share = np.repeat(1 / (np.bincount(each.groups)[each.groups] * adapters), adapters)
        weighed = columns.T * share
        gram += weighed @ columns
        moment += weighed @ each.gains.ravel()
    groups = len({g for each in played for g in each.groups.tolist()})
    pull = PRIOR * max(float(np.diag(gram).mean()) / max(groups, 1), 1e-6)
    lower = np.linalg.cholesky(gram + pull * np.eye(size))
    return nnls(lower.T, np.linalg.solve(lower, moment + pull * USUAL))[0]
