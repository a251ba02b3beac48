"""The transfer matrix: scores and gains of every adapter on every task, with names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...adapters import Cell, PairedOutcomes, SuiteError
from ..tasks.scoring import Scores, example_scores, score_on

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TransferMatrix:
    """`scores` (adapters, tasks) and `base` (tasks,): means of a score over a task's examples.

    They are in [0, 1], but for likelihoods: the share of right answers where each is right or wrong. `example_gains`
    holds for each task an array (examples, adapters): the adapter's score less the base model's on every example; for
    right or wrong answers +1 where the adapter alone is right, -1 where base alone is, else 0.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    base: Array
    scores: Array
    example_gains: tuple[Array, ...]

    @property
    def gains(self) -> Array:
        """Score of each adapter less the base model's, shape (adapters, tasks); negative: side effect."""
        return self.scores - self.base

    @property
    def paired(self) -> PairedOutcomes:
        """On how many examples adapter and base differ, how far, and of how many in all."""
        return PairedOutcomes.of(self.example_gains)

    @classmethod
    def from_cells(cls, cells: Sequence[Cell], *, score: Scores = "metric") -> Self:
        """Arrange `cells`, by a score or each task's; adapters and tasks keep the order in which they first come.

        Raises:
            SuiteError: a cell of the matrix is missing.
        """
        cell_scores = {(c.adapter, c.task): example_scores(c.outcomes, score_on(c.task, score)) for c in cells}
        adapters = tuple(dict.fromkeys(c.adapter for c in cells if c.adapter is not None))
        tasks = tuple(dict.fromkeys(c.task for c in cells))
        missing = [(a, t) for a in (None, *adapters) for t in tasks if (a, t) not in cell_scores]
        if missing:
            raise SuiteError(f"{len(missing)} cells are not measured yet, first {missing[0]}")
        gains = tuple(np.stack([cell_scores[a, t] - cell_scores[None, t] for a in adapters], axis=1) for t in tasks)
        return cls(
            adapters=adapters,
            tasks=tasks,
            base=np.array([cell_scores[None, t].mean() for t in tasks]),
            scores=np.array([[cell_scores[a, t].mean() for t in tasks] for a in adapters]),
            example_gains=gains,
        )
