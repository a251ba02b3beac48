"""Anchors: the examples of a task that say most about an adapter that was not measured yet, and what follows from them.

Adapters that were measured in full show which examples go together: an adapter that does well on one is likely to do
well, or badly, on another. With that covariance the score on all examples is predicted from a few (kriging), and the
few are ordered so that each one leaves the least error (`TaskAnchors`). This order does not depend on the new adapter.
How far down each task's list to go is decided while it is measured (`AnchorRow`): the next example is the one that
takes most off the sum of the tasks' variances. A task on which the adapter is always wrong, or always right, is left
early, and so is one on which its scores hardly vary.
Compared with anchors by clusters, item response and optimal design this needed the fewest examples:
`benchmarks/reprofiling.py`, docs/reprofiling.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Places = NDArray[np.intp]

CHANCE = 10
"""Of n known adapters n / (n + CHANCE) of what examples have in common is believed: few of them do alike by chance.

`benchmarks/anchor_errors.py`: so errors are as large as is stated."""
WORTH = 1.0
"""The mean score of the known adapters counts as so many examples: few, since adapters differ."""
LEAST_CHANCE = 0.005
"""No score is certain before it is measured, however alike the known adapters are."""
ENDS = 0.1 * 2.0 ** np.arange(-2, 4)
"""Shares of a row at which a round of measuring ends: a tenth, its half and quarter, and its doubles.

Rounds that are smaller cost a pass of the model for a handful of answers, and choose no better."""
TOLERANCE = 0.02
"""Mean standard error of a row's scores at which measuring ends: two points, as fine as a few hundred examples show."""
LEAST_EACH = 3
"""At least so many examples for each task, on average, however small a share is asked for."""


@dataclass(frozen=True)
class TaskEstimate:
    """The predicted mean score of a task, its standard error, and the expected score of each example (n,)."""

    score: float
    error: float
    examples: Array


@dataclass(frozen=True)
class TaskAnchors:
    """The anchors of one task of n examples; variances are in units of the variance of one example's score.

    `expected` is the mean score of known adapters, and `between` that of score · (1 − score), 0 where all is right or
    wrong: so much less do scores vary that lie between. `covariance` (n, n) is that of the examples' scores. `order`
    (n,) are the examples, the most informative first; `left` (n + 1,) is the variance of the task's mean score that is
    left after so many of them.
    """

    expected: float
    between: float
    covariance: Array
    order: Places
    left: Array

    @classmethod
    def of(cls, scores: ArrayLike, columns: ArrayLike | None = None) -> Self:
        """Choose anchors by known adapters: each one's scores in [0, 1], (n, known), and further `columns` (n, any).

        Columns are other measurements of the known adapters, such as the likelihood of the gold answer.
        """
        known = np.asarray(scores, dtype=np.float64)
        seen = known if columns is None else np.hstack([known, np.asarray(columns, np.float64)])
        expected = float(np.clip(known.mean(), LEAST_CHANCE, 1 - LEAST_CHANCE))
        most = expected * (1 - expected) - LEAST_CHANCE * (1 - LEAST_CHANCE)
        between = max(min(_between(known), most), 0.0)
        covariance = _correlation(seen, known.shape[1]) + 1 / WORTH
        return cls(expected, between, covariance, *_most_informative(covariance))

    def __len__(self) -> int:
        return len(self.order)

    def mean(self, tried: float, total: float) -> float:
        """The score expected on the next example, after so many `tried` with scores of that `total`."""
        return (WORTH * self.expected + total) / (WORTH + tried)

    def variance(self, tried: float, total: float, between: float = 0.0) -> float:
        """Variance of one example's score after so many `tried`, whose scores and whose score · (1 − score) sum so.

        For right or wrong answers it is that of a Beta posterior's next draw.
        """
        mean, weight = self.mean(tried, total), WORTH + tried
        within = mean * (1 - mean) - (WORTH * self.between + between) / weight
        return within * weight / (weight + 1)

    def estimate(self, places: Places, scores: Array) -> TaskEstimate:
        """The score of the whole task, predicted from the `scores` (m,) of the examples `places` (m,)."""
        measured, rest = self.covariance[np.ix_(places, places)], self.covariance[:, places]
        solved = np.linalg.solve(measured, np.column_stack([scores - self.expected, rest.T]))
        examples = np.clip(self.expected + rest @ solved[:, 0], 0, 1)
        examples[places] = scores
        left = max(float((self.covariance - rest @ solved[:, 1:]).mean()), 0.0)
        variance = self.variance(len(places), float(scores.sum()), _between(scores) * len(places))
        error = 0.0 if len(places) == len(self) else float(np.sqrt(variance * left))
        return TaskEstimate(float(examples.mean()), error, examples)


_NOTHING: tuple[Places, Array] = (np.zeros(0, np.intp), np.zeros(0))


@dataclass(frozen=True)
class RowEstimate:
    """A row over tasks: predicted mean `scores`, their standard `errors` (tasks,), and expected scores by example."""

    scores: Array
    errors: Array
    examples: tuple[Array, ...]

    @property
    def error(self) -> float:
        """The mean standard error."""
        return float(self.errors.mean())


@dataclass
class AnchorRow:
    """A row that is being measured: `anchors` by task, and by task the places and scores that were measured."""

    anchors: Sequence[TaskAnchors]
    measured: dict[int, tuple[Places, Array]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Examples of the full row."""
        return sum(map(len, self.anchors))

    @property
    def done(self) -> int:
        """Examples measured."""
        return sum(len(places) for places, _ in self.measured.values())

    def add(self, task: int, places: Places, scores: Array) -> None:
        """Add the `scores` (m,) of the examples `places` (m,) of a task."""
        old_places, old_scores = self.measured.get(task, _NOTHING)
        self.measured[task] = np.append(old_places, places), np.append(old_scores, scores)

    def estimate(self) -> RowEstimate:
        """The row as predicted from what was measured so far."""
        tasks = [a.estimate(*self.measured.get(i, _NOTHING)) for i, a in enumerate(self.anchors)]
        return RowEstimate(
            np.array([task.score for task in tasks]),
            np.array([task.error for task in tasks]),
            tuple(task.examples for task in tasks),
        )

    def next(self, count: int) -> Mapping[int, Places]:
        """The next `count` examples to measure, by task; fewer where fewer are left.

        They are chosen together, so each counts with its expected score.
        """
        scores = [self.measured.get(i, _NOTHING)[1] for i in range(len(self.anchors))]
        tried = np.array([len(each) for each in scores])
        total = np.array([np.sum(each) for each in scores])
        between = np.array([_between(each) * len(each) for each in scores])
        start = tried.copy()
        gains = np.array([self._worth(i, tried[i], total[i], between[i]) for i in range(len(tried))])
        for _ in range(min(count, self.size - self.done)):
            task = int(gains.argmax())
            between[task] += (WORTH * self.anchors[task].between + between[task]) / (WORTH + tried[task])
            total[task] += self.anchors[task].mean(tried[task], total[task])
            tried[task] += 1
            gains[task] = self._worth(task, tried[task], total[task], between[task])
        orders = ((i, a.order[start[i] : tried[i]]) for i, a in enumerate(self.anchors))
        return {i: order for i, order in orders if len(order)}

    def _worth(self, task: int, tried: int, total: float, between: float) -> float:
        """How much one more example takes off the task's variance; below zero where there is none."""
        anchors = self.anchors[task]
        if tried >= len(anchors):
            return -1.0
        return anchors.variance(tried, total, between) * (anchors.left[tried] - anchors.left[tried + 1])


def rounds(size: int, tasks: int, share: float) -> NDArray[np.intp]:
    """How many examples are measured after each round, of a row of `size` over `tasks`; `share` of it after the last.

    Each round is as large as all before it, since little is known at first. Where rounds end does not depend on the
    share, so what was measured for a smaller share is a part of what a larger one needs.
    """
    budget = min(size, max(round(share * size), LEAST_EACH * tasks))
    ends = np.unique(np.maximum(np.round(size * ENDS), 1)).astype(np.intp)
    return np.append(ends[ends < budget], budget)


def _between(scores: Array) -> float:
    """The mean of score · (1 − score): 0 where all are right or wrong."""
    return float(np.mean(scores * (1 - scores))) if scores.size else 0.0


def _correlation(columns: Array, known: int) -> Array:
    """Correlation of examples (n, n) over the columns that vary, shrunk towards independence the fewer are `known`."""
    centred = columns - columns.mean(axis=0)
    spread = centred.std(axis=0)
    varied = centred[:, spread > 1e-9] / spread[spread > 1e-9]
    independent = np.eye(len(columns))
    if varied.shape[1] == 0:
        return independent
    shared = known / (known + CHANCE)
    return shared * varied @ varied.T / varied.shape[1] + (1 - shared) * independent


def _most_informative(covariance: Array) -> tuple[Places, Array]:
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
