"""What the newest profile was fitted to: its tasks, rendered again, and the outcomes of every adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...adapters import AdapterState, Cell, Outcomes, ProfileSummary, Registry, RegistryError, StoredProfile, SuiteError
from ...router import TrainingRows
from ..tasks.scoring import example_scores
from ..tasks.sources import file_rows
from ..tasks.task import Task, routing_scores
from .anchors import Array, TaskAnchors
from .matrix import TransferMatrix

SHOWN = 100
"""So many training rows of an adapter show the router what it was trained on."""
_NAMED = 3
"""So many adapters are named in a message."""


@dataclass(frozen=True)
class MeasuredGains:
    """Gains and their standard `errors`, (tasks,), 0 for tasks measured in full; `examples` (tasks,) were measured."""

    gains: Array
    errors: Array
    examples: NDArray[np.int64]


@dataclass(frozen=True)
class Profiled:
    """A stored profile with its tasks, in its order, and what was measured on them.

    `cells` are those of base (None) and of the adapters measured on every example, by adapter and task. `estimated` are
    the rows that were measured on anchors only.
    """

    stored: StoredProfile
    tasks: tuple[Task, ...]
    cells: Mapping[tuple[str | None, str], Cell]
    estimated: Mapping[str, MeasuredGains]
    summary: ProfileSummary

    @classmethod
    def open(cls, registry: Registry) -> Self:
        """Read the newest profile.

        Raises:
            RegistryError: there is none, or a task gives other examples than those that were measured.
        """
        stored = registry.latest_profile()
        if stored is None:
            raise RegistryError(_no_profile(registry))
        summary = stored.summary
        tasks, digests = profiled_tasks(registry, summary), registry.task_digests()
        for task in tasks:
            _check_same(task, digests[task.name])
        cells = {(cell.adapter, cell.task): cell for cell in registry.cells(keys=summary.cells)}
        return cls(stored, tasks, cells, _estimated(summary), summary)

    @cached_property
    def whole(self) -> tuple[str, ...]:
        """The adapters that were measured on every example of every task."""
        return tuple(name for name in self.summary.adapters if name not in self.estimated)

    def outcomes(self, adapter: str | None, task: Task) -> Outcomes:
        """The outcomes of `adapter` (None: base) on a task."""
        return self.cells[adapter, task.name].outcomes

    def matrix(self, adapters: Sequence[str]) -> TransferMatrix:
        """The matrix over adapters measured in full."""
        places = [(name, task.name) for name in (None, *adapters) for task in self.tasks]
        return TransferMatrix.from_cells([self.cells[place] for place in places], score=routing_scores(self.tasks))

    def keys(self, adapter: str) -> frozenset[str]:
        """Keys of the adapter's whole cells."""
        return frozenset(cell.key for (name, _), cell in self.cells.items() if name == adapter)

    def anchors(self, *, without: str) -> list[TaskAnchors]:
        """Each task's anchors, chosen by base and the adapters measured in full, one of them left out."""
        known = [None, *(name for name in self.whole if name != without)]
        return [task_anchors(task, [self.outcomes(name, task) for name in known]) for task in self.tasks]


def _no_profile(registry: Registry) -> str:
    """That there is no profile, and the command that makes one of the adapters that wait."""
    waiting = sorted(registry.adapter_names(AdapterState.PENDING))
    named = " ".join(f"--adapter {name}" for name in waiting[:_NAMED]) + (" …" if len(waiting) > _NAMED else "")
    run = f"traitroute profile --registry {registry.location} {named or '--adapters FOLDER'} --targets FOLDER"
    return (
        f"the registry holds no profile yet, and so no tasks to measure on: run `{run}` with rows of your tasks in "
        "FOLDER/TASK/test.jsonl"
    )


def training_rows(tasks: Sequence[Task], source: str | Path | None) -> TrainingRows | None:
    """The rows that an adapter was trained on: those in the file `source`, or of the source task of that name.

    Raises:
        SuiteError: the file cannot be read, or holds none.
    """
    if isinstance(source, Path):
        return read_training_rows(source)
    task = next((t for t in tasks if t.name == source and t.source), None)
    if task is None:
        return None
    shown = task.training_examples[:SHOWN]
    return TrainingRows.read([e.routed for e in shown], [e.target for e in shown])


def profiled_tasks(registry: Registry, summary: ProfileSummary) -> tuple[Task, ...]:
    """The tasks of a profile, each with the score that the profile was fitted to.

    Raises:
        RegistryError: the registry lacks one.
    """
    specs = registry.tasks()
    if lost := [name for name in summary.tasks if name not in specs]:
        raise RegistryError(f"the registry has lost task {lost[0]!r}: profile it again")
    tasks = [Task.model_validate(specs[name]) for name in summary.tasks]
    return tuple(t.model_copy(update={"score": summary.score_of(t.name)}) for t in tasks)


def read_training_rows(file: Path) -> TrainingRows:
    """The first rows of a file (JSONL, CSV, Parquet) of `input` (the prompt as it was trained on) and `target`.

    Raises:
        SuiteError: it cannot be read, or holds none.
    """
    rows = list(islice(file_rows(file), SHOWN))
    if not rows:
        raise SuiteError(f"{file} holds no rows of what an adapter was trained on: give some, or leave the file out")
    return TrainingRows.read([row["input"] for row in rows], [row.get("target", "") for row in rows])


def _estimated(summary: ProfileSummary) -> dict[str, MeasuredGains]:
    gains = dict(zip(summary.adapters, summary.gains, strict=True))
    rows = summary.estimated
    return {
        name: MeasuredGains(gains[name], errors, examples)
        for name, errors, examples in zip(rows.adapters, rows.errors, rows.examples, strict=True)
    }


def task_anchors(task: Task, known: Sequence[Outcomes], places: slice | NDArray[np.intp] = slice(None)) -> TaskAnchors:
    """The anchors of a task, or of its examples in these places, by the outcomes of `known` adapters on all of them."""
    scores = np.stack([task.scores(o) for o in known], axis=1)
    seen = [example_scores(o, "likelihood") for o in known]
    gold = _gold_labels(task)
    seen += [o.label_probabilities[np.arange(len(o)), gold] for o in known if len(gold)]
    return TaskAnchors.of(scores[places], np.stack(seen, axis=1)[places])


def _gold_labels(task: Task) -> NDArray[np.intp]:
    """The place of each test example's answer among the labels that get a probability; empty for tasks without."""
    if task.metric.name != "label" or not task.lists_labels:
        return np.zeros(0, np.intp)
    return np.array([task.labels.index(e.answer) for e in task.test_examples], np.intp)


def _check_same(task: Task, digest: str) -> None:
    if task.digest != digest:
        raise RegistryError(
            f"task {task.name} gives other examples than those the profile was measured on: put its data "
            "where it was, in the same version, or profile again"
        )
