"""Measure one adapter's row and open it to routing; no other row is measured, and nothing is fitted anew.

The row is measured on anchors, in rounds (`anchor_row.py`), until its gains are sure enough or the share that was asked for
is used up; a task that was measured in full already costs nothing. What is finished is kept under a key that names the
examples, so a killed run goes on where it was, and a part of a task is never taken for the whole.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..adapters import (
    Adapter,
    Cell,
    ConflictError,
    InputError,
    Outcomes,
    Registry,
    SilentAdapterError,
)
from ..router import TrainingRows
from ..serving.engines import Engine
from .anchor_row import TOLERANCE, AnchorRow, rounds
from .anchors import Places
from .base_model import BaseModelFolder
from .measure import cell_key, measure_cell, request_for, to_outcomes
from .new_row import NewRow, join
from .profiled import Profiled
from .task import Task

SHARE = 0.1
_ATTEMPTS = 20


@dataclass(frozen=True)
class MeasuredRow:
    """What measuring a row came to: the profile `version` that holds it, the row, its size in examples, and seconds."""

    version: int
    row: NewRow
    size: int
    seconds: float

    @property
    def share(self) -> float:
        """The share of the full row that was measured."""
        return float(self.row.examples.sum() / self.size)


def measure_row(
    adapter: Adapter,
    engine: Engine,
    registry: Registry,
    base: BaseModelFolder,
    *,
    share: float = SHARE,
    full: bool = False,
    tolerance: float = TOLERANCE,
    training: TrainingRows | None = None,
    on_examples: Callable[[int, int], None] = lambda done, of: None,
) -> MeasuredRow:
    """Measure `adapter`, or the replacement that waits for its name, and admit it in one transaction.

    Up to `share` of the examples are measured, fewer where the mean standard error of its gains gets below `tolerance`, or
    all with `full`. `training` tells where it is at home; by default its source task does. `on_examples` is told how many are done.

    Raises:
        InputError: the adapter is for another base model, or there is nothing to join.
        SilentAdapterError: it answered exactly as the base model did, everywhere; what was measured is removed.
        ConflictError: the adapter was changed while it was measured.
    """
    if adapter.base_digest != base.digest:
        raise InputError(
            f"adapter {adapter.name} is for {adapter.base_model}, but the profile's adapters are for "
            f"{base.name}: profile it with adapters of its own base model"
        )
    start = time.monotonic()
    profiled = Profiled.open(registry)
    meter = _Meter(engine, registry, base, adapter, profiled)
    row = AnchorRow(profiled.anchors(without=adapter.name))
    meter.take_whole(row, measure=full, on_examples=on_examples)
    for upto in () if full else rounds(row.size, len(row.anchors), share):
        if row.estimate().error <= tolerance:
            break
        for task, places in row.next(max(int(upto) - row.done, 0)).items():
            meter.measure(row, task, places)
            on_examples(row.done, row.size)
    meter.refuse_silence()
    found = meter.row(row, training or profiled.training_rows(adapter.source_task))
    version = _admit(registry, profiled, adapter, found)
    return MeasuredRow(version, found, row.size, time.monotonic() - start)


def anchor_key(
    base_digest: str, adapter: Adapter, task_digest: str, engine: str, places: Places
) -> str:
    """Digest of what determines the outcomes of some of a task's examples; no whole cell has such a key."""
    parts = [2, base_digest, adapter.weights_digest, task_digest, engine, places.tolist()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class _Meter:
    """Measures parts of one adapter's row, and knows what it has measured."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        base: BaseModelFolder,
        adapter: Adapter,
        profiled: Profiled,
    ) -> None:
        self._engine, self._registry, self._base = engine, registry, base
        self._adapter, self._profiled = adapter, profiled
        self._keys: list[str] = []
        self._like_base: list[bool] = []
        self._whole: dict[int, Outcomes] = {}
        self._base_row = [self._base_outcomes(task) for task in profiled.tasks]

    def take_whole(
        self, row: AnchorRow, *, measure: bool, on_examples: Callable[[int, int], None]
    ) -> None:
        """Take in every task that was measured in full, or with `measure` measure it."""
        for i, task in enumerate(self._profiled.tasks):
            key = cell_key(self._base.digest, self._adapter, task.digest, self._engine.name)
            found = self._registry.find_cell(key)
            if found is None and not measure:
                continue
            outcomes = found.outcomes if found else measure_cell(self._engine, self._adapter, task)
            self._whole[i] = outcomes
            self._keep(row, key, i, np.arange(len(outcomes)), outcomes)
            on_examples(row.done, row.size)

    def measure(self, row: AnchorRow, task: int, places: Places) -> None:
        """Measure some examples of a task, unless they were."""
        spec = self._profiled.tasks[task]
        key = anchor_key(self._base.digest, self._adapter, spec.digest, self._engine.name, places)
        found = self._registry.find_cell(key)
        outcomes = found.outcomes if found else self._run(spec, places)
        self._keep(row, key, task, places, outcomes)

    def refuse_silence(self) -> None:
        """Refuse an adapter of which no output differs from base's: it was never applied."""
        if not all(self._like_base):
            return
        self._registry.remove_cells(self._keys)
        raise SilentAdapterError(
            f"adapter {self._adapter.name} answered exactly as the base model on every example measured: "
            "it was not applied, or its weights do nothing; its row was not kept"
        )

    def row(self, row: AnchorRow, training: TrainingRows | None) -> NewRow:
        """The row as it is known now, as gains over what base scored on this engine."""
        found = row.estimate()
        base = np.array([float(np.mean(o.strict)) for o in self._base_row])
        nothing = (np.zeros(0, np.intp), np.zeros(0))
        tried = [len(row.measured.get(i, nothing)[0]) for i in range(len(base))]
        profiled = self._profiled
        return NewRow(
            adapter=self._adapter.name,
            weights_digest=self._adapter.weights_digest,
            tasks=tuple(t.name for t in profiled.tasks),
            gains=found.scores - base,
            errors=found.errors,
            examples=np.array(tried, np.intp),
            cells=tuple(self._keys),
            replaced=profiled.keys(self._adapter.name),
            paired=self._paired() if len(self._whole) == len(base) else {},
            training=training,
        )

    def _paired(self) -> Mapping[str, list[int]]:
        pairs = [(self._whole[i].strict, b.strict) for i, b in enumerate(self._base_row)]
        return {
            "won": [int(np.sum(ours & ~base)) for ours, base in pairs],
            "lost": [int(np.sum(base & ~ours)) for ours, base in pairs],
            "examples": [len(base) for _, base in pairs],
        }

    def _keep(
        self, row: AnchorRow, key: str, task: int, places: Places, outcomes: Outcomes
    ) -> None:
        # Named anew: the same weights may have been measured under another name.
        name = self._profiled.tasks[task].name
        self._registry.put_cell(Cell(key, self._adapter.name, name, outcomes))
        self._keys.append(key)
        base = self._base_row[task].output_digest[places]
        self._like_base.append(bool(np.array_equal(outcomes.output_digest, base)))
        row.add(task, places, outcomes.strict.astype(np.float64))

    def _run(self, task: Task, places: Places) -> Outcomes:
        examples = [task.test_examples[i] for i in places]
        results = self._engine.run([request_for(task, e, self._adapter) for e in examples])
        return to_outcomes(task, examples, results)

    def _base_outcomes(self, task: Task) -> Outcomes:
        """Base's whole cell on this engine, measured once for all adapters where the profile was made on another."""
        key = cell_key(self._base.digest, None, task.digest, self._engine.name)
        if (found := self._registry.find_cell(key)) is not None:
            return found.outcomes
        outcomes = measure_cell(self._engine, None, task)
        self._registry.put_cell(Cell(key, None, task.name, outcomes))
        return outcomes


def _admit(registry: Registry, profiled: Profiled, adapter: Adapter, row: NewRow) -> int:
    """Join the row to the newest profile and open it to routing; where another row came first, join after it."""
    stored = profiled.stored
    for _ in range(_ATTEMPTS):
        joined = join(stored, row)
        try:
            return registry.admit(adapter, joined.data, joined.summary, parent=stored.version)
        except ConflictError:
            newest = registry.latest_profile()
            if newest is None or newest.version == stored.version:
                raise
            stored = newest
    raise ConflictError(
        f"the profile changed {_ATTEMPTS} times while {adapter.name} joined it: try again"
    )
