"""The steps of a job: find the adapter, measure the base model's cells, then the adapter's row, a part at a time.

Each step may be done again after a crash, and finds what was finished before it: a part of the row under its key, an adapter
that is ready. Locks keep two workers from measuring the same part at the same time: jobs share the base model's cells, and
two names may share weights.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...adapters import (
    Adapter,
    AdapterState,
    InputError,
    Registry,
    WeightsError,
    inspect_adapter,
)
from ...adapters.weights.base_shapes import BaseShapes
from ...serving.engines import EngineRequest, EngineResult
from ...serving.engines.openai import OpenAIEngine
from ..base_model import BaseModelFolder
from ..matrix.anchor_row import rounds
from ..matrix.measure import cell_key, measured_cell
from ..matrix.row import SHARE, measure_row
from ..tasks.task import Task
from .locks import Locks
from .outcome import Told, WithdrawnError
from .pending import is_replacement, pending

STEP_EXAMPLES = 32
"""A step measures about so many examples: choosing the next ones takes a moment too."""


@dataclass
class RowSteps:
    """Measures rows of `registry` on `engine`, for adapters of `base`: up to `share` of a row's examples, 1 for all."""

    registry: Registry
    engine: OpenAIEngine
    base: BaseModelFolder
    locks: Locks
    share: float = SHARE
    _tasks: dict[str, Task] = field(default_factory=dict)

    def find(self, name: str, weights: str, tasks: Sequence[str]) -> Told:
        """Check that the adapter can be measured here and that the server knows it by now; tells the examples at most."""
        adapter = self._pending(name, weights)
        if adapter.base_digest != self.base.digest:
            reason = f"it was trained for {adapter.base_model}, not for {self.base.name}"
            return {"refused": f"adapter {name}: {reason}, which the profile's adapters are for"}
        if (misfit := self._misfit(weights)) is not None:
            return {"refused": f"adapter {name}: {misfit}"}
        self.engine.check_offered(adapter)
        size = sum(len(self._task(task).test_examples) for task in tasks)
        return {"most": size if self.full else int(rounds(size, len(tasks), self.share)[-1])}

    def measure_base(self, name: str, weights: str, task_name: str) -> Told:
        """Measure the base model's cell of a task on this engine, unless it is there."""
        self._pending(name, weights)
        task, start = self._task(task_name), time.monotonic()
        key = cell_key(self.base.digest, None, task.digest, self.engine.name)
        with self.locks.wait(f"cell {key}"):
            measured_cell(self.engine, self.registry, self.base, None, task)
        return {"seconds": time.monotonic() - start}

    def measure_parts(self, name: str, weights: str) -> Told:
        """Measure the next parts of the row that are not there, or where none is missing admit the adapter."""
        adapter, start = self._pending(name, weights), time.monotonic()
        engine = _SomeParts(self.engine)
        with self.locks.wait(f"row {weights}"):
            try:
                found = measure_row(adapter, engine, self.registry, self.base, share=self.share, full=self.full)
            except _EnoughError:
                return {"examples": engine.examples, "seconds": time.monotonic() - start}
        return {"examples": engine.examples, "version": found.version}

    def set_aside(self, name: str, weights: str, reason: str) -> Told:
        """Disable the adapter, or give up the replacement, and note why."""
        adapter = self._pending(name, weights)
        if is_replacement(self.registry, adapter):
            self.registry.withdraw_replacement(name, note=f"its replacement was set aside: {reason}")
        else:
            self.registry.set_state(name, AdapterState.DISABLED, note=reason, expected=adapter)
        return {}

    @property
    def full(self) -> bool:
        """Whether rows are measured on all examples."""
        return self.share >= 1

    def _pending(self, name: str, weights: str) -> Adapter:
        for adapter in pending(self.registry):
            if (adapter.name, adapter.weights_digest) == (name, weights):
                return adapter
        raise WithdrawnError(f"adapter {name} was removed, replaced, enabled or disabled meanwhile")

    def _misfit(self, weights: str) -> str | None:
        """Why the weights do not fit the base model: vLLM takes narrower ones, and applies them to a part of each layer."""
        folder = self.registry.weights.path(weights)
        try:
            BaseShapes.of_folder(self.base.path).check(inspect_adapter(folder))
        except WeightsError as exc:
            return str(exc).replace(f"{folder}: ", "").replace(f"{folder}/", "")
        return None

    def _task(self, name: str) -> Task:
        digest = self.registry.task_digests().get(name)
        if digest is None:
            raise InputError(f"the registry holds no task {name!r}: profile it again")
        if digest not in self._tasks:
            task = Task.model_validate(self.registry.tasks()[name])
            if task.digest != digest:
                raise InputError(
                    f"task {name!r} gives other examples than those the profile was measured on: give this "
                    "worker the same data folders and versions, or profile again"
                )
            self._tasks[digest] = task
        return self._tasks[digest]


class _EnoughError(Exception):
    """No error: as much as a step measures is measured and kept."""


class _SomeParts:
    """The engine for a step: once it has answered enough, it stops at the next part, when the last is in the registry."""

    def __init__(self, engine: OpenAIEngine) -> None:
        self._engine = engine
        self.name = engine.name
        self.examples = 0

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        """Answer and score the requests of one part."""
        if self.examples >= STEP_EXAMPLES:
            raise _EnoughError
        results = self._engine.run(requests)
        self.examples += len(requests)
        return results

    def close(self) -> None:
        """The server runs on, and so does the engine."""
