"""Measure one adapter's row and open it to routing; no other row is measured, and nothing is fitted again.

The row is measured on anchors, in rounds (`anchors.py`), until its gains are precise enough or the share that was asked
for is used up. Tasks that were measured in full already cost nothing. What is finished is kept under a key that names
the examples, so a killed run continues where it was, and a part of a task is never taken for the whole. The gains are
then projected onto the traits of the newest profile, so no decision changes except for this adapter.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from ...adapters import (
    Adapter,
    Cell,
    ConflictError,
    InputError,
    NewRow,
    Outcomes,
    PairedOutcomes,
    ProfileSummary,
    Registry,
    StoredProfile,
    TrainingNote,
)
from ...router import RoutingProfile, TrainingRows
from ...serving.engines import Engine, EngineResult
from ...serving.engines.probe import EngineProbe
from ..base_model import BaseModelFolder
from ..tasks.task import Example, Task
from .anchors import TOLERANCE, AnchorRow, Places, rounds
from .everyday import everyday_losses
from .measure import Changes, cell_key, measured_cell, refuse_silence, request_for, to_outcomes
from .profiled import MeasuredGains, Profiled, training_rows
from .votes import Votes

SHARE = 0.1
AT_ONCE = 64
"""So many examples, or a task's more, are asked together and then kept: more fill batches no better, and are lost by a
run that is killed."""
_ATTEMPTS = 20
OnExamples = Callable[[int, int], None]


@dataclass(frozen=True)
class MeasuredRow:
    """A row that was measured and admitted: the profile `version` that holds it, its size in examples, and seconds."""

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
    note: TrainingNote | None = None,
    on_examples: OnExamples = lambda done, of: None,
) -> MeasuredRow:
    """Measure `adapter`, or the replacement that waits for its name, and admit it in one transaction.

    Up to `share` of the examples are measured, fewer where the mean standard error of its gains gets below `tolerance`,
    or all with `full`. `training` are rows it was trained on, by default those of its source task; `note` is on its
    making. `on_examples` is called with the number of examples done, and of how many.

    Raises:
        InputError: the adapter is for another base model, or there is nothing to join.
        SilentAdapterError: it changes nothing beyond noise; what was measured is removed.
        ConflictError: the adapter was changed while it was measured.
    """
    if adapter.base_digest != base.digest:
        raise InputError(
            f"adapter {adapter.name} is for {adapter.base_model}, but the profile's adapters are for "
            f"{base.name}: profile it with adapters of its own base model"
        )
    start = time.monotonic()
    profiled = Profiled.open(registry)
    meter = RowMeter(engine, registry, base, adapter, profiled, on_examples)
    if full:
        meter.measure_whole()
    else:
        meter.measure_anchors(share, tolerance)
    meter.refuse_silence()
    row = replace(meter.new_row(), note=note, everyday=meter.everyday_loss())
    training = training or training_rows(profiled.tasks, adapter.source_task)
    version = _admit(registry, profiled.stored, adapter, row, training)
    return MeasuredRow(version, row, meter.row.size, time.monotonic() - start)


def join(stored: StoredProfile, row: NewRow, training: TrainingRows | None) -> tuple[bytes, ProfileSummary]:
    """The routing profile and the summary of `stored` with `row`, in the place of one that its adapter has already.

    Raises:
        InputError: the profile has other tasks than the row.
    """
    if row.tasks != stored.summary.tasks:
        raise InputError(
            f"the row of {row.adapter} was measured on other tasks than those of profile version "
            f"{stored.version}: it was fitted anew meanwhile, so measure again"
        )
    scores = stored.summary.traits.project(row.gains)
    routing = RoutingProfile.from_bytes(stored.data).with_adapter(
        row.adapter, scores, training, gains=row.gains, everyday_loss=row.everyday
    )
    return routing.to_bytes(), stored.summary.with_row(row)


def _admit(
    registry: Registry, stored: StoredProfile, adapter: Adapter, row: NewRow, training: TrainingRows | None
) -> int:
    """Join the row to the newest profile and open it to routing; where another row came first, join after it."""
    for _ in range(_ATTEMPTS):
        data, summary = join(stored, row, training)
        try:
            return registry.admit(adapter, data, summary, parent=stored.version)
        except ConflictError:
            newest = registry.latest_profile()
            if newest is None or newest.version == stored.version:
                raise
            stored = newest
    raise ConflictError(f"the profile changed {_ATTEMPTS} times while {adapter.name} joined it: try again")


@dataclass
class RowMeter:
    """Measures `adapter` on the tasks of `profiled`, whose other adapters choose the anchors.

    `keys` are those of the cells that were measured, `whole` the outcomes of tasks measured in full.
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
        self.row = AnchorRow(self.profiled.anchors(without=self.adapter.name))
        tasks = self.profiled.tasks
        self._votes = [Votes.kept_in(self.profiled.outcomes(None, task)) for task in tasks]
        # Measured once for all adapters, where the profile was made on another engine.
        base = [self._cell(None, task).outcomes for task in tasks]
        self.base_row = [v.scored(o, None) if v else o for v, o in zip(self._votes, base, strict=True)]
        self._unscored: list[str] = []
        self._changes: list[Changes] = []

    def measure_whole(self) -> None:
        """Measure every task in full, unless it was."""
        for i, task in enumerate(self.profiled.tasks):
            self._take_whole(i, self._cell(self.adapter, task))

    def measure_anchors(self, share: float, tolerance: float = TOLERANCE) -> None:
        """Measure up to `share` of the examples in rounds, until the mean standard error is below `tolerance`."""
        for i, task in enumerate(self.profiled.tasks):
            key = cell_key(self.base.digest, self.adapter, task.digest, self.engine.name)
            if self.registry.find_cell(key) is not None:
                self._take_whole(i, self._cell(self.adapter, task))
        for upto in rounds(self.row.size, len(self.row.anchors), share):
            if self.row.estimate().error <= tolerance:
                break
            for parts in _together(self.row.next(max(int(upto) - self.row.done, 0))):
                self.measure_parts(parts)

    def refuse_silence(self) -> None:
        """Record the adapter's effect on the probe, and refuse one that changes nothing.

        Raises:
            SilentAdapterError: it is such; what was measured is removed.
        """
        refuse_silence(
            self.registry, self.adapter, EngineProbe(self.engine), self._changes, [*self.keys, *self._unscored]
        )

    def everyday_loss(self) -> float | None:
        """What the adapter loses on everyday requests, in score points; None where that cannot be measured."""
        return everyday_losses([self.adapter], self._cell).get(self.adapter.name)

    def gains(self) -> MeasuredGains:
        """The gains as known by now, over what base scored on this engine."""
        estimate = self.row.estimate()
        base = np.array([t.scores(o).mean() for t, o in zip(self.profiled.tasks, self.base_row, strict=True)])
        measured = [len(self.row.measured.get(i, ((), ()))[0]) for i in range(len(base))]
        return MeasuredGains(estimate.scores - base, estimate.errors, np.array(measured, np.int64))

    def new_row(self) -> NewRow:
        """The row as the profile takes it."""
        gains, adapter = self.gains(), self.adapter
        return NewRow(
            adapter=adapter.name,
            weights_digest=adapter.weights_digest,
            tasks=tuple(t.name for t in self.profiled.tasks),
            gains=gains.gains,
            errors=gains.errors,
            examples=gains.examples,
            cells=tuple(self.keys),
            replaced=self.profiled.keys(adapter.name),
            paired=self._paired() if len(self.whole) == len(self.base_row) else None,
        )

    def _paired(self) -> PairedOutcomes:
        rows = enumerate(zip(self.profiled.tasks, self.base_row, strict=True))
        return PairedOutcomes.of(
            [(task.scores(self.whole[i]) - task.scores(base))[:, None] for i, (task, base) in rows]
        )

    def measure_parts(self, parts: Mapping[int, Places]) -> None:
        """Measure some examples of several tasks unless they were, asked together: a few of one task fill no batch."""
        keys = {task: self._part_key(task, places) for task, places in parts.items()}
        cells = {task: self.registry.find_cell(key) for task, key in keys.items()}
        outcomes = {task: cell.outcomes for task, cell in cells.items() if cell is not None}
        outcomes |= self._run({task: places for task, places in parts.items() if task not in outcomes})
        for task, places in parts.items():
            # Named anew: the same weights may have been measured under another name.
            name = self.profiled.tasks[task].name
            self.registry.put_cell(Cell(keys[task], self.adapter.name, name, outcomes[task]))
            self._add(task, keys[task], places, outcomes[task])

    def _part_key(self, task: int, places: Places) -> str:
        digest = self.profiled.tasks[task].digest
        key = anchor_key(self.base.digest, self.adapter, digest, self.engine.name, places)
        return votes.key(key) if (votes := self._votes[task]) else key

    def _take_whole(self, task: int, cell: Cell) -> None:
        if votes := self._votes[task]:
            self._unscored.append(cell.key)
            cell = votes.keep(self.registry, cell, self.adapter)
        self.whole[task] = cell.outcomes
        self._add(task, cell.key, np.arange(len(cell.outcomes)), cell.outcomes)

    def _add(self, task: int, key: str, places: Places, outcomes: Outcomes) -> None:
        self.keys.append(key)
        self._changes.append(Changes.of(outcomes, self.base_row[task], places))
        self.row.add(task, places, self.profiled.tasks[task].scores(outcomes))
        self.on_examples(self.row.done, self.row.size)

    def _run(self, parts: Mapping[int, Places]) -> dict[int, Outcomes]:
        if not parts:
            return {}
        examples = {task: [self.profiled.tasks[task].test_examples[i] for i in at] for task, at in parts.items()}
        asked = [
            request_for(self.profiled.tasks[task], each, self.adapter)
            for task, some in examples.items()
            for each in some
        ]
        results = iter(self.engine.run(asked))
        return {
            task: self._judged(task, parts[task], some, list(islice(results, len(some))))
            for task, some in examples.items()
        }

    def _judged(
        self, number: int, places: Places, examples: Sequence[Example], results: Sequence[EngineResult]
    ) -> Outcomes:
        by_base, votes = self.base_row[number].texts, self._votes[number]
        base_outputs = [by_base[i] for i in places] if by_base else None
        outcomes = to_outcomes(self.profiled.tasks[number], examples, results, base_outputs)
        return votes.scored(outcomes, self.adapter, places) if votes else outcomes

    def _cell(self, adapter: Adapter | None, task: Task) -> Cell:
        return measured_cell(self.engine, self.registry, self.base, adapter, task)


def _together(parts: Mapping[int, Places]) -> Iterator[dict[int, Places]]:
    """Tasks with their places, so many that there are `AT_ONCE` examples, or as many as are left."""
    some: dict[int, Places] = {}
    for task, places in parts.items():
        some[task] = places
        if sum(map(len, some.values())) >= AT_ONCE:
            yield some
            some = {}
    if some:
        yield some


def anchor_key(base_digest: str, adapter: Adapter, task_digest: str, engine: str, places: Places) -> str:
    """Digest of what determines the outcomes of some of a task's examples; no whole cell has such a key."""
    parts = [2, base_digest, adapter.weights_digest, task_digest, engine, places.tolist()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
