"""Measure one adapter's row and open it to routing; no other row is measured, and nothing is fitted anew.

The row is measured on anchors, in rounds (`anchor_row.py`), until its gains are sure enough or the share that was asked for
is used up; a task that was measured in full already costs nothing.
"""

import time
from dataclasses import dataclass

from ...adapters import Adapter, ConflictError, InputError, Registry
from ...router import TrainingRows
from ...serving.engines import Engine
from ..base_model import BaseModelFolder
from .anchor_row import TOLERANCE
from .new_row import NewRow, join
from .profiled import Profiled
from .row_meter import OnExamples, RowMeter

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
    on_examples: OnExamples = lambda done, of: None,
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
    meter = RowMeter(engine, registry, base, adapter, profiled, on_examples)
    if full:
        meter.measure_whole()
    else:
        meter.measure_anchors(share, tolerance)
    meter.refuse_silence()
    found = _new_row(meter, training or profiled.training_rows(adapter.source_task))
    version = _admit(registry, profiled, adapter, found)
    return MeasuredRow(version, found, meter.row.size, time.monotonic() - start)


def _new_row(meter: RowMeter, training: TrainingRows | None) -> NewRow:
    found, adapter = meter.gains(), meter.adapter
    return NewRow(
        adapter=adapter.name,
        weights_digest=adapter.weights_digest,
        tasks=tuple(t.name for t in meter.profiled.tasks),
        gains=found.gains,
        errors=found.errors,
        examples=found.examples,
        cells=tuple(meter.keys),
        replaced=meter.profiled.keys(adapter.name),
        paired=meter.paired(),
        training=training,
    )


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
    raise ConflictError(f"the profile changed {_ATTEMPTS} times while {adapter.name} joined it: try again")
