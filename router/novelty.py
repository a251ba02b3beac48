"""How new a request is: of a profiled kind, of such a kind in other words, or of a kind that nobody profiled.

What may be believed of a request depends on it. The three classes are played on what was profiled: requests held out,
tasks held out whose group stays, and groups held out. Three measures tell them apart: the share of the words at its
ends that nothing profiled is asked with, and how unlike it is, by words and by meaning, to the kind that is most like
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CLASSES = ("known", "reworded", "new")
MEASURES = ("unseen words", "unlike in words", "unlike in meaning")

TYPICAL: Array = np.array([[0.62, 0.05, 0.24], [0.79, 0.31, 0.34], [0.82, 0.41, 0.45]])
"""Mean measures of each class on the public prompts that the routing benchmark is designed on, (classes, measures)."""
SPREAD: Array = np.array([0.17, 0.13, 0.11])
"""Standard deviations of the measures within a class there, (measures,)."""
PRIOR = 3.0
"""These count as much as so many groups that were held out."""


@dataclass(frozen=True)
class Novelty:
    """A linear discriminant between the classes: log-odds `coef` (classes, measures) and `intercept` (classes,)."""

    coef: Array
    intercept: Array

    @classmethod
    def of(cls, measured: Mapping[str, tuple[Array, NDArray[np.intp]]]) -> Self:
        """Fit to the measures (n, 3) of held-out requests of each class, and the numbers of their groups (n,).

        Groups count alike, whatever their size, and so do the classes.
        """
        means, squares, weights = TYPICAL.copy(), np.zeros(len(MEASURES)), 0.0
        for name, (rows, groups) in measured.items():
            place, kinds = CLASSES.index(name), np.unique(groups)
            by_group = np.array([rows[groups == g].mean(axis=0) for g in kinds])
            share = len(kinds) / (len(kinds) + PRIOR)
            means[place] += share * (by_group.mean(axis=0) - means[place])
            squares += (
                np.mean([np.mean((rows[groups == g] - means[place]) ** 2, axis=0) for g in kinds], axis=0) * share
            )
            weights += share
        left = max(len(CLASSES) - weights, 0.0)
        variance = (squares + left * SPREAD**2) / (weights + left)
        coef = means / np.maximum(variance, 1e-4)
        return cls(coef, -0.5 * np.sum(coef * means, axis=1))

    def probabilities(self, measures: Array) -> Array:
        """How likely each class is (..., classes), all being equally frequent, by the measures (..., 3) of requests."""
        odds = measures @ self.coef.T + self.intercept
        odds = np.exp(odds - odds.max(axis=-1, keepdims=True))
        return odds / odds.sum(axis=-1, keepdims=True)
