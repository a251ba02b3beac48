"""How far each kind of evidence is believed: learnt where it was held out.

The gain of an adapter on a request is a weighed sum of what it gains in general, of how kinds that are near differ from
that (`kinds.py`), and of the evidence from its training rows. As far as a request is like these, they tell in place of
what the adapter gains in general: one that was trained for many things gains more on most, and no more on what another
was trained for. The weights are shared by all adapters, so that a newcomer needs no fit. Least squares finds them
first, none of them negative and drawn towards usual ones: of a few kinds alone they cannot be learnt. Small errors are
not good choices, though: evidence that is weak on most adapters and decides between the best ones hardly lowers the
error. So weights are then moved, from these or the usual ones, whichever are larger, to where the choices gain most on
what was held out (a policy's value, as in learning to rank by its softmax; Cao and others, ICML 2007), and scaled so
that gains are predicted rightly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .folds import FitData, Fold
from .guard import expected_base
from .kinds import VIEWS
from .training_profiles import KINDS, in_doubt, learnt

Array = NDArray[np.float64]
EVIDENCE = (*VIEWS, *KINDS)

USUAL: Array = np.array([0.6, 1.0, 0.1, 0.3])
"""Weights between those learnt of two tables of outcomes, by hand, (evidence,)."""
PRIOR = 3.0
"""These count as much as so many groups."""

SOFT = 0.1
"""Gain by which the choice among adapters is soft while weights are learnt: two that differ by it have odds of e."""
PULL = 0.1
"""What it costs, in gain of one group, to move a weight by a factor of e, from that of least squares or its usual one,
whichever is larger; by the square of e costs four times as much."""
FURTHEST = np.log(100.0)
"""Nor is it moved further than this."""


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

    @cached_property
    def share(self) -> Array:
        """How much each request counts (q,): all one in sum, and groups alike."""
        shares = 1 / np.bincount(self.groups)[self.groups]
        return np.asarray(shares / shares.sum(), np.float64)

    def gained(self, weights: Array) -> tuple[float, Array]:
        """What soft choices by these weights gain, and its slope (evidence,)."""
        with_base = np.pad(self.predict(weights), ((0, 0), (1, 0))) / SOFT
        odds = np.exp(with_base - with_base.max(axis=1, keepdims=True))
        chance = odds[:, 1:] / odds.sum(axis=1, keepdims=True)
        gain = np.sum(chance * self.gains, axis=1)
        slopes = chance * (self.gains - gain[:, None]) * self.share[:, None]
        return float(self.share @ gain), np.tensordot(slopes, self.parts, 2) / SOFT

    def predict(self, weights: Array) -> Array:
        """Predicted gains (q, a)."""
        return self.parts @ weights

    def base(self, weights: Array, groups: int) -> Array:
        """The base model's expected scores (q,), so many `groups` being profiled."""
        general, near = self.base_views.T
        return expected_base(general, near, weights, groups)


def _parts(fold: Fold, gains: Array) -> Array:
    """What each kind of evidence says of a fold's requests and adapters, (q, a, evidence)."""
    views = fold.views(gains).transpose(0, 2, 1)
    evidence = fold.evidence * learnt(fold.match, fold.means(gains))[:, None] * in_doubt(fold.unknown)[:, None, None]
    # What an adapter was trained for its training tells, and not what it gains in general.
    views[..., 0] *= 1 - evidence[..., 0]
    return np.concatenate([views, evidence], axis=2)


def fit_weights(played: Sequence[Played]) -> Array:
    """The weights (evidence,) of the choices that gain most; groups count alike, and so do the ways of holding out."""
    start = _least_squares(played)
    if not played:
        return start
    chosen = _best_choices(played, start)
    # Choices do not depend on the scale: it is that of least squared error.
    predicted = [each.predict(chosen) for each in played]
    right = sum(each.share @ np.sum(p * each.gains, axis=1) for each, p in zip(played, predicted, strict=True))
    square = sum(each.share @ np.sum(p * p, axis=1) for each, p in zip(played, predicted, strict=True))
    return chosen * max(float(right), 0.0) / max(float(square), 1e-12)


def _best_choices(played: Sequence[Played], start: Array) -> Array:
    """The weights (evidence,) near `start`, or the usual ones, by which soft choices gain most."""
    from scipy.optimize import minimize

    # A weight of least squares next to nothing is no evidence that choices gain nothing by it.
    logs, pull = np.log(np.maximum(start, USUAL)), PULL / _group_count(played)

    def loss(at: Array) -> tuple[float, Array]:
        weights, moved = np.exp(at), at - logs
        gained, slopes = zip(*(each.gained(weights) for each in played), strict=True)
        slope = pull * moved - weights * np.mean(slopes, axis=0)
        return pull * float(moved @ moved) / 2 - float(np.mean(gained)), slope

    bounds = np.stack([logs - FURTHEST, logs + FURTHEST], axis=1)
    return np.exp(minimize(loss, logs, jac=True, method="L-BFGS-B", bounds=bounds).x)


def _least_squares(played: Sequence[Played]) -> Array:
    """The weights (evidence,) of least squared error, drawn to the usual ones."""
    from scipy.optimize import nnls

    size = len(USUAL)
    gram, moment = np.zeros((size, size)), np.zeros(size)
    for each in played:
        columns = each.parts.reshape(-1, size)
        adapters = each.gains.shape[1]
        weighed = columns.T * np.repeat(each.share / adapters, adapters)
        gram += weighed @ columns
        moment += weighed @ each.gains.ravel()
    pull = PRIOR * max(float(np.diag(gram).mean()), 1e-6) / max(_group_count(played), 1)
    lower = np.linalg.cholesky(gram + pull * np.eye(size))
    return nnls(lower.T, np.linalg.solve(lower, moment + pull * USUAL))[0]


def _group_count(played: Sequence[Played]) -> int:
    return len({g for each in played for g in each.groups.tolist()})
