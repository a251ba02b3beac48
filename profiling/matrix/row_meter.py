"""Measures an adapter on some tasks, in whole cells or on anchors: all tasks for a row, new ones for its part of a column.

What is finished is kept under a key that names the examples, so a killed run goes on where it was, and a part of a task is
never taken for the whole.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...adapters import Adapter, Cell, Outcomes, Registry, SilentAdapterError
from ...serving.engines import Engine
from ..base_model import BaseModelFolder
from ..tasks.task import Task
from .anchor_row import TOLERANCE, AnchorRow, rounds
from .anchors import Places
from .measure import cell_key, measured_cell, request_for, to_outcomes
from .profiled import Profiled

Array = NDArray[np.float64]
OnExamples = Callable[[int, int], None]


@dataclass(frozen=True)
class MeasuredGains:
    """Gains and their standard `errors`, (tasks,), 0 for tasks measured in full; `examples` (tasks,) is how many were measured."""

    gains: Array
    errors: Array
    examples: NDArray[np.intp]


@dataclass
class RowMeter:
    """Measures `adapter` on the tasks of `profiled`, whose other adapters choose the anchors.

    `on_examples` is told how many are done, and of how many. `keys` are those of what was measured, `whole` the outcomes of
    tasks measured in full.
    """

    engine: Engine
    registry: Registry
    base: BaseModelFolder
    adapter: Adapter
    profiled: Profiled
    on_examples: OnExamples = lambda done, of: None
    keys: list[str] = field(default_factory=list)
    whole: dict[int, Outcomes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tasks = self.profiled.tasks
        self.row = AnchorRow(self.profiled.anchors(without=self.adapter.name))
        self.base_row = [self._cell(None, task).outcomes for task in tasks]
        self._like_base: list[bool] = []

    def measure_whole(self) -> None:
        """Measure every task in full, unless it was."""
        for i, task in enumerate(self.profiled.tasks):
            cell = self._cell(self.adapter, task)
            self._take_whole(i, cell)

    def measure_anchors(self, share: float, tolerance: float = TOLERANCE) -> None:
        """Measure up to `share` of the examples in rounds, fewer where the gains' mean standard error gets below `tolerance`.

        Tasks that were measured in full cost nothing.
        """
        for i, task in enumerate(self.profiled.tasks):
            key = cell_key(self.base.digest, self.adapter, task.digest, self.engine.name)
            if self.registry.find_cell(key) is not None:
                self._take_whole(i, self._cell(self.adapter, task))
        for upto in rounds(self.row.size, len(self.row.anchors), share):
            if self.row.estimate().error <= tolerance:
                break
            for task, places in self.row.next(max(int(upto) - self.row.done, 0)).items():
                self._measure_part(task, places)

    def refuse_silence(self) -> None:
        """Refuse an adapter of which no output differs from base's: it was never applied.

        Raises:
            SilentAdapterError: it is such; what was measured is removed.
        """
        if not all(self._like_base):
            return
        self.registry.remove_cells(self.keys)
        raise SilentAdapterError(
            f"adapter {self.adapter.name} answered exactly as the base model on every example measured: "
            "it was not applied, or its weights do nothing; its row was not kept"
        )

    def gains(self) -> MeasuredGains:
        """What is known now, as gains over what base scored on this engine."""
        found = self.row.estimate()
        base = np.array([float(np.mean(o.strict)) for o in self.base_row])
        tried = [len(self.row.measured.get(i, ((), ()))[0]) for i in range(len(base))]
        return MeasuredGains(found.scores - base, found.errors, np.array(tried, np.intp))

    def paired(self) -> Mapping[str, list[int]]:
        """How many examples only the adapter got right, how many only base, and of how many; none unless all were measured."""
        if len(self.whole) < len(self.base_row):
            return {}
        pairs = [(self.whole[i].strict, base.strict) for i, base in enumerate(self.base_row)]
        return {
            "won": [int(np.sum(ours & ~base)) for ours, base in pairs],
            "lost": [int(np.sum(base & ~ours)) for ours, base in pairs],
            "examples": [len(base) for _, base in pairs],
        }

    def _measure_part(self, task: int, places: Places) -> None:
        spec = self.profiled.tasks[task]
        key = anchor_key(self.base.digest, self.adapter, spec.digest, self.engine.name, places)
        found = self.registry.find_cell(key)
        outcomes = found.outcomes if found else self._run(spec, places)
        # Named anew: the same weights may have been measured under another name.
        self.registry.put_cell(Cell(key, self.adapter.name, spec.name, outcomes))
        self._add(task, key, places, outcomes)

    def _take_whole(self, task: int, cell: Cell) -> None:
        self.whole[task] = cell.outcomes
        self._add(task, cell.key, np.arange(len(cell.outcomes)), cell.outcomes)

    def _add(self, task: int, key: str, places: Places, outcomes: Outcomes) -> None:
        self.keys.append(key)
        base = self.base_row[task].output_digest[places]
        self._like_base.append(bool(np.array_equal(outcomes.output_digest, base)))
        self.row.add(task, places, outcomes.strict.astype(np.float64))
        self.on_examples(self.row.done, self.row.size)

    def _run(self, task: Task, places: Places) -> Outcomes:
        examples = [task.test_examples[i] for i in places]
        results = self.engine.run([request_for(task, e, self.adapter) for e in examples])
        return to_outcomes(task, examples, results)

    def _cell(self, adapter: Adapter | None, task: Task) -> Cell:
        """A whole cell on this engine; base's is measured once for all adapters where the profile was made on another."""
        return measured_cell(self.engine, self.registry, self.base, adapter, task)


def anchor_key(base_digest: str, adapter: Adapter, task_digest: str, engine: str, places: Places) -> str:
    """Digest of what determines the outcomes of some of a task's examples; no whole cell has such a key."""
    parts = [2, base_digest, adapter.weights_digest, task_digest, engine, places.tolist()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
