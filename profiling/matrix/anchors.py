"""Anchors: the examples of a task that tell most about an adapter nobody measured yet, and what they say of all examples.

Adapters that were measured in full say which examples go together: an adapter that is right on one is likely right, or
likely wrong, on another. With that covariance the score on all examples is predicted from a few (kriging), and the few
are taken one by one such that the error left is least. Both are chosen without the new adapter; how far down each task's
list it is worth going is decided while it is measured (`anchor_row.py`). Beside anchors by clusters, item response
and optimal design this needed the fewest examples: `benchmarks/reprofiling.py`, docs/reprofiling.md.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Places = NDArray[np.intp]

SHARED = 0.9
"""Share of an example's variance that examples have in common on which the known adapters fare alike."""
WORTH = 0.5
"""So many examples the mean score of the known adapters is worth: little, since adapters differ."""
LEAST_CHANCE = 0.005
"""No score is certain before it is measured, however alike the known adapters are."""


@dataclass(frozen=True)
class TaskEstimate:
    """The predicted mean score of a task, its standard error, and the expected score of each example (n,)."""

    score: float
    error: float
    examples: Array


@dataclass(frozen=True)
class TaskAnchors:
    """The anchors of one task of n examples; variances are in units of the variance of one example's score.

    `expected` is the mean score of known adapters, `covariance` (n, n) that of the examples' scores. `order` (n,) are
    the examples, the most telling first; `left` (n + 1,) is the variance of the task's mean score that is left after
    so many of them.
    """

    expected: float
    covariance: Array
    order: Places
    left: Array

    @classmethod
    def of(cls, strict: ArrayLike, marks: ArrayLike | None = None) -> Self:
        """Read anchors off known adapters: whether each was right (n, known), and further columns `marks` (n, any).

        Marks are what else was seen of the known ones on an example, such as the likelihood of the gold answer.
        """
        right = np.asarray(strict, dtype=np.float64)
        columns = right if marks is None else np.hstack([right, np.asarray(marks, np.float64)])
        chance = float(np.clip(right.mean(), LEAST_CHANCE, 1 - LEAST_CHANCE))
        covariance = _likeness(columns) + 1 / WORTH
        return cls(chance, covariance, *_most_telling(covariance))

    def __len__(self) -> int:
        return len(self.order)

    def chance(self, tried: float, right: float) -> float:
        """The chance of a right answer on the next example, after `right` of so many `tried`."""
        return (WORTH * self.expected + right) / (WORTH + tried)

    def variance(self, tried: float, right: float) -> float:
        """Variance of one example's score, as far as `right` of `tried` tell: that of a Beta posterior's next draw."""
        chance, weight = self.chance(tried, right), WORTH + tried
        return chance * (1 - chance) * weight / (weight + 1)

    def estimate(self, places: Places, right: Array) -> TaskEstimate:
        """What the scores `right` (m,) on the examples `places` (m,) say of the whole task."""
        measured, rest = self.covariance[np.ix_(places, places)], self.covariance[:, places]
        solved = np.linalg.solve(measured, np.column_stack([right - self.expected, rest.T]))
        examples = np.clip(self.expected + rest @ solved[:, 0], 0, 1)
        examples[places] = right
        left = max(float((self.covariance - rest @ solved[:, 1:]).mean()), 0.0)
        variance = self.variance(len(places), float(right.sum()))
        error = 0.0 if len(places) == len(self) else float(np.sqrt(variance * left))
        return TaskEstimate(float(examples.mean()), error, examples)


def _likeness(columns: Array) -> Array:
    """How alike examples are (n, n), with ones on the diagonal on average: correlation over columns that vary."""
    centred = columns - columns.mean(axis=0)
    spread = centred.std(axis=0)
    varied = centred[:, spread > 1e-9] / spread[spread > 1e-9]
    own = np.eye(len(columns))
    if varied.shape[1] == 0:
        return own
    return SHARED * varied @ varied.T / varied.shape[1] + (1 - SHARED) * own


def _most_telling(covariance: Array) -> tuple[Places, Array]:
    """Examples in the order that leaves least variance of the mean at every step, and what is left (n + 1,)."""
    rest = covariance.copy()
    open_ = np.ones(len(rest), dtype=bool)
    order, left = [], [rest.mean()]
    for _ in range(len(rest)):
        own = np.maximum(np.diag(rest), 1e-9)
        worth = np.where(open_, rest.sum(axis=0) ** 2 / own, -1.0)
        best = int(worth.argmax())
        rest -= np.outer(rest[best], rest[best]) / own[best]
        open_[best] = False
        order.append(best)
        left.append(max(rest.mean(), 0.0))
    return np.array(order, dtype=np.intp), np.array(left)
