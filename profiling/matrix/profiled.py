"""What the newest profile was fitted to: its tasks, rendered again, and the outcomes of every adapter measured in full."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...adapters import Cell, Outcomes, Registry, RegistryError, StoredProfile
from ...router import TrainingRows
from ..tasks.scoring import example_scores
from ..tasks.task import Task
from .anchors import TaskAnchors

SHOWN = 100
"""So many training rows of an adapter tell the router where it is at home."""


@dataclass(frozen=True)
class Profiled:
    """A stored profile with its tasks, in its order, and its cells by adapter (None: base) and task.

    Rows measured on anchors only are not among the cells: see `estimated`.
    """

    stored: StoredProfile
    tasks: tuple[Task, ...]
    cells: Mapping[tuple[str | None, str], Cell]

    @classmethod
    def open(cls, registry: Registry) -> Self:
        """Read the newest profile.

        Raises:
            RegistryError: there is none, or a task gives other examples than those that were measured.
        """
        stored = registry.latest_profile()
        if stored is None:
            raise RegistryError("the registry holds no profile yet: run `traitroute profile SUITE`")
        names = stored.summary["tasks"]
        specs, digests = registry.tasks(), registry.task_digests()
        if lost := [name for name in names if name not in specs]:
            raise RegistryError(f"the registry has lost task {lost[0]!r}: profile it again")
        tasks = tuple(Task.model_validate(specs[name]) for name in names)
        for task in tasks:
            _check_same(task, digests[task.name])
        cells = registry.cells(keys=stored.summary["cells"])
        return cls(stored, tasks, {(cell.adapter, cell.task): cell for cell in cells})

    @property
    def summary(self) -> dict[str, Any]:
        """The profile's summary."""
        return self.stored.summary

    @property
    def estimated(self) -> Mapping[str, Mapping[str, Any]]:
        """Rows measured on anchors, by adapter: standard `errors` of gains and numbers of `examples`, by task."""
        return self.summary.get("estimated", {})

    @cached_property
    def whole(self) -> tuple[str, ...]:
        """The adapters that were measured on every example of every task."""
        return tuple(a for a in self.summary["adapters"] if a not in self.estimated)

    def outcomes(self, adapter: str | None, task: Task) -> Outcomes:
        """What `adapter` (None: base) did on a task."""
        return self.cells[adapter, task.name].outcomes

    def keys(self, adapter: str) -> frozenset[str]:
        """Keys of the adapter's whole cells."""
        return frozenset(cell.key for (name, _), cell in self.cells.items() if name == adapter)

    def anchors(self, *, without: str) -> list[TaskAnchors]:
        """Each task's anchors, as base and the adapters measured in full tell, one of them left out."""
        known = [None, *(name for name in self.whole if name != without)]
        return [self._anchors(task, [self.outcomes(name, task) for name in known]) for task in self.tasks]

    def training_rows(self, source: str | None) -> TrainingRows | None:
        """What an adapter trained on the task `source` was shown, where that is one of the profile's source tasks."""
        task = next((t for t in self.tasks if t.name == source and t.source), None)
        if task is None:
            return None
        shown = task.training_examples[:SHOWN]
        return TrainingRows.read([e.prompt for e in shown], [e.target for e in shown])

    def _anchors(self, task: Task, known: list[Outcomes]) -> TaskAnchors:
        right = np.stack([example_scores(o, "strict") for o in known], axis=1)
        seen = [example_scores(o, "likelihood") for o in known]
        gold = _gold_labels(task)
        seen += [o.label_probabilities[np.arange(len(o)), gold] for o in known if len(gold)]
        return TaskAnchors.of(right, np.stack(seen, axis=1))


def _gold_labels(task: Task) -> NDArray[np.intp]:
    """The place of each test example's answer among the labels that get a probability; empty for tasks without."""
    if task.metric != "label" or not task.lists_labels:
        return np.zeros(0, np.intp)
    return np.array([task.labels.index(e.answer) for e in task.test_examples], np.intp)


def _check_same(task: Task, digest: str) -> None:
    if task.digest != digest:
        raise RegistryError(
            f"task {task.name} gives other examples than those the profile was measured on: put its data "
            "where it was, in the same version, or profile again"
        )
