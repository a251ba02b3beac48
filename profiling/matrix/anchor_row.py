"""An adapter's row, measured on anchors: which examples come next, and what is known of the row so far.

The next example is the one that takes most off the sum of the tasks' variances, given what was measured: a task on which
the adapter is always wrong, or always right, is left early, and its examples go where the adapter is in two minds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .anchors import Array, Places, TaskAnchors

ENDS = 0.1 * 2.0 ** np.arange(-5, 4)
"""Shares of a row after which it is asked anew where doubt is left: a tenth, and its halves and doubles."""
TOLERANCE = 0.02
"""Mean standard error of a row's scores at which measuring ends: two points, as little as a few hundred examples tell."""
LEAST_EACH = 3
"""At least so many examples for each task there is, on average, however small a share is asked for."""


@dataclass(frozen=True)
class RowEstimate:
    """A row over tasks: predicted mean `scores` (tasks,), their standard `errors`, and expected scores of each example."""

    scores: Array
    errors: Array
    examples: tuple[Array, ...]

    @property
    def error(self) -> float:
        """The mean standard error."""
        return float(self.errors.mean())


@dataclass
class AnchorRow:
    """A row that is being measured: `anchors` by task, and what was measured of each as (places, right)."""

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

    def add(self, task: int, places: Places, right: Array) -> None:
        """Take in scores (m,) of the examples `places` (m,) of a task."""
        nothing = np.zeros(0, np.intp), np.zeros(0)
        old_places, old_right = self.measured.get(task, nothing)
        self.measured[task] = np.append(old_places, places), np.append(old_right, right)

    def estimate(self) -> RowEstimate:
        """What is known of the row now."""
        nothing = np.zeros(0, np.intp), np.zeros(0)
        found = [a.estimate(*self.measured.get(i, nothing)) for i, a in enumerate(self.anchors)]
        return RowEstimate(
            np.array([f.score for f in found]),
            np.array([f.error for f in found]),
            tuple(f.examples for f in found),
        )

    def next(self, count: int) -> Mapping[int, Places]:
        """The next `count` examples to measure, by task; fewer where fewer are left.

        None of them is measured yet when they are chosen, so each counts as what is expected of it.
        """
        tried = np.array([len(self.measured.get(i, ((), ()))[0]) for i in range(len(self.anchors))])
        right = np.array([np.sum(self.measured.get(i, ((), ()))[1]) for i in range(len(tried))])
        start = tried.copy()
        gains = np.array([self._worth(i, tried[i], right[i]) for i in range(len(tried))])
        for _ in range(min(count, self.size - self.done)):
            task = int(gains.argmax())
            right[task] += self.anchors[task].chance(tried[task], right[task])
            tried[task] += 1
            gains[task] = self._worth(task, tried[task], right[task])
        orders = ((i, a.order[start[i] : tried[i]]) for i, a in enumerate(self.anchors))
        return {i: order for i, order in orders if len(order)}

    def _worth(self, task: int, tried: int, right: float) -> float:
        """How much one more example takes off the task's variance; below zero where there is none."""
        anchors = self.anchors[task]
        if tried >= len(anchors):
            return -1.0
        return anchors.variance(tried, right) * (anchors.left[tried] - anchors.left[tried + 1])


def rounds(size: int, tasks: int, share: float) -> NDArray[np.intp]:
    """How many examples are measured after each round, of a row of `size` over `tasks`; `share` of it after the last.

    Each round is as large as all before it: little is known at first, and the last choice matters least. The ends of rounds
    do not depend on the share, so that what was measured for a smaller one is a part of what a larger one needs.
    """
    budget = min(size, max(round(share * size), LEAST_EACH * tasks))
    ends = np.unique(np.maximum(np.round(size * ENDS), 1)).astype(np.intp)
    return np.append(ends[ends < budget], budget)
