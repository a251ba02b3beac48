"""Votes on unlabelled tasks: answers of base and of a profile's adapters, by which each other's answers are scored.

What others answer is known once all have answered. So cells of such tasks are measured unscored first, under the key of
what was measured. Then scores are counted, and kept in further cells, whose keys name the votes too: with other voters
nothing is measured again, and no score changes that a profile was fitted to. Base's scored cell holds the votes. An
adapter that joins later is scored by them, and changes nobody's score.

A score is the share of the others that answer alike. Nobody votes on itself, under whatever name its weights go. For
answerers that differ by chance alone this share has the same mean whether they voted or joined later, and however many
voted. A majority has not: what tips it for one who joined is a tie for one whose own vote is left out. And base, one
voter of many, cancels out of gains: it agrees with an adapter as often as the adapter with it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...adapters import Adapter, Cell, Outcomes, Registry
from ..tasks.task import Task


@dataclass(frozen=True)
class Votes:
    """Hashes of the answers (n, voters) to a task's examples, and of the weights of those who gave them (voters,)."""

    answers: NDArray[np.uint64]
    voters: NDArray[np.uint64]

    @classmethod
    def of(cls, cells: Sequence[Cell], adapters: Sequence[Adapter | None]) -> Self:
        """The votes of `adapters` (None: base), whose cells on the task these are."""
        answers = np.stack([cell.outcomes.output_digest for cell in cells], axis=1)
        return cls(answers, np.array([_voter(adapter) for adapter in adapters], np.uint64))

    @classmethod
    def kept_in(cls, base: Outcomes) -> Self | None:
        """The votes that base's scored cell holds; None for tasks that are scored otherwise."""
        return cls(base.votes, base.voters) if len(base.voters) else None

    def scored(
        self, outcomes: Outcomes, adapter: Adapter | None, places: slice | NDArray[np.int64] = slice(None)
    ) -> Outcomes:
        """The outcomes of `adapter` (None: base) on the examples in these places, scored by the others' votes."""
        others = self.answers[places][:, self.voters != _voter(adapter)]
        alike = (others == outcomes.output_digest[:, None]).sum(axis=1)
        shares = np.where(outcomes.parse_failure, 0.0, alike / max(others.shape[1], 1))
        return replace(outcomes, score=shares.astype(np.float32), strict=shares == 1, lenient=shares >= 0.5)

    def key(self, measured: str) -> str:
        """The key of the scored cell, by the key of what was measured."""
        digest = hashlib.sha256(self.voters.tobytes() + np.ascontiguousarray(self.answers).tobytes()).hexdigest()
        return hashlib.sha256(json.dumps([3, measured, digest]).encode()).hexdigest()

    def keep(self, registry: Registry, cell: Cell, adapter: Adapter | None) -> Cell:
        """The cell of `adapter` with its scores, kept; base's with the votes too."""
        outcomes = self.scored(cell.outcomes, adapter)
        if adapter is None:
            outcomes = replace(outcomes, votes=self.answers, voters=self.voters)
        scored = replace(cell, key=self.key(cell.key), outcomes=outcomes)
        registry.put_cell(scored)
        return scored


def count_votes(
    registry: Registry, rows: Sequence[Sequence[Cell]], adapters: Sequence[Adapter | None], tasks: Sequence[Task]
) -> list[list[Cell]]:
    """The measured rows of `adapters` (None: base) on `tasks`, with the scored cells of tasks that go by votes."""
    counted = [list(row) for row in rows]
    for place, task in enumerate(tasks):
        if not task.metric.by_votes:
            continue
        votes = Votes.of([row[place] for row in rows], adapters)
        for row, adapter in zip(counted, adapters, strict=True):
            row[place] = votes.keep(registry, row[place], adapter)
    return counted


def _voter(adapter: Adapter | None) -> int:
    return 0 if adapter is None else int(adapter.weights_digest[:16], 16)
