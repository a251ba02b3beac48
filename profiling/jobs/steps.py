"""The steps of a job: find the adapter, measure the base model's cells, then the adapter's row, a part at a time.

Each step may be repeated after a crash, and reuses what was finished before: a part of the row under its key, an
adapter that is ready. Locks keep two workers from measuring the same part at the same time: jobs share the base model's
cells, and two names may share weights. A result is JSON, since DBOS stores it. Errors are results too, since the job
continues differently after each kind.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...adapters import (
    Adapter,
    AdapterState,
    DatabaseError,
    InputError,
    RefusalError,
    Registry,
    RegistryError,
    ServerError,
    SilentAdapterError,
    WeightsError,
    inspect_adapter,
)
from ...adapters.weights.base_shapes import SAMPLED, BaseShapes
from ...serving.engines import EngineRequest, EngineResult
from ...serving.engines.openai import OpenAIEngine
from ..base_model import BaseModelFolder
from ..matrix.anchors import rounds
from ..matrix.measure import cell_key, measured_cell
from ..matrix.row import SHARE, measure_row
from ..tasks.task import Task
from .locks import Locks

Result = dict[str, Any]
STEP_EXAMPLES = 32
"""A step measures about so many examples: choosing the next ones takes a moment too."""
_NOT_THE_ADAPTERS_FAULT = frozenset({401, 403, 404})
"""The worker's key is wrong, or the server does not know the name: not yet, or no more since it was restarted."""


class WithdrawnError(InputError):
    """The adapter was removed, replaced or disabled while its job ran."""


def attempt(step: Callable[[], Result], *, of_adapter: bool) -> Result:
    """The result of `step`, or the reason under `away`, `refused` or `withdrawn` where it failed.

    Raises:
        InputError: neither waiting nor disabling the adapter would help.
    """
    try:
        return step()
    except WithdrawnError as exc:
        return {"withdrawn": str(exc)}
    except SilentAdapterError as exc:
        return {"refused": str(exc)}
    except RefusalError as exc:
        if exc.status in _NOT_THE_ADAPTERS_FAULT:
            return {"away": str(exc)}
        if not of_adapter:
            raise InputError(f"the server refuses the base model's requests: {exc}") from exc
        return {"refused": str(exc)}
    except (ServerError, DatabaseError, RegistryError) as exc:
        return {"away": str(exc)}


def pending(registry: Registry) -> list[Adapter]:
    """Every adapter that a server can run and whose weights are not measured, replacements included."""
    waiting = [*registry.adapters(AdapterState.PENDING), *registry.replacements()]
    return [adapter for adapter in waiting if adapter.vllm_serves]


def is_replacement(registry: Registry, adapter: Adapter) -> bool:
    """Whether the adapter waits to replace another of its name."""
    waiting = registry.replacement(adapter.name)
    return waiting is not None and waiting.weights_digest == adapter.weights_digest


def served_name(registry: Registry, adapter: Adapter) -> str:
    """The model name by which servers answer with these weights."""
    if is_replacement(registry, adapter):
        return f"{adapter.name}@{adapter.version}"
    return adapter.name


@dataclass
class RowSteps:
    """Measures rows of `registry` on `engine`, for adapters of `base`: up to `share` of a row's examples, 1 for all."""

    registry: Registry
    engine: OpenAIEngine
    base: BaseModelFolder
    locks: Locks
    share: float = SHARE
    _tasks: dict[str, Task] = field(default_factory=dict)

    def find(self, name: str, weights: str, tasks: Sequence[str]) -> Result:
        """Check that the adapter can be measured here and that the server knows it; return the most examples needed."""
        adapter = self._pending(name, weights)
        if adapter.base_digest != self.base.digest:
            reason = f"it was trained for {adapter.base_model}, not for {self.base.name}"
            return {"refused": f"adapter {name}: {reason}, which the profile's adapters are for"}
        if (misfit := self._misfit(weights)) is not None:
            return {"refused": f"adapter {name}: {misfit}"}
        self.engine.check_offered(adapter)
        size = sum(len(self._task(task).test_examples) for task in tasks)
        return {"most": size if self.full else int(rounds(size, len(tasks), self.share)[-1])}

    def measure_base(self, name: str, weights: str, task_name: str) -> Result:
        """Measure the base model's cell of a task on this engine, unless it was."""
        self._pending(name, weights)
        task, start = self._task(task_name), time.monotonic()
        key = cell_key(self.base.digest, None, task.digest, self.engine.name)
        with self.locks.wait(f"cell {key}"):
            measured_cell(self.engine, self.registry, self.base, None, task)
        return {"seconds": time.monotonic() - start}

    def measure_parts(self, name: str, weights: str) -> Result:
        """Measure the next missing parts of the row, or admit the adapter where none is missing."""
        adapter, start = self._pending(name, weights), time.monotonic()
        engine = _SomeParts(self.engine)
        with self.locks.wait(f"row {weights}"):
            try:
                row = measure_row(adapter, engine, self.registry, self.base, share=self.share, full=self.full)
            except _EnoughError:
                return {"examples": engine.examples, "seconds": time.monotonic() - start}
        return {"examples": engine.examples, "version": row.version}

    def set_aside(self, name: str, weights: str, reason: str) -> Result:
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
        """Why the weights do not fit the base model: vLLM accepts narrower ones, and applies them in part."""
        folder = self.registry.weights.path(weights)
        try:
            measured = self.registry.measured_weights(self.base.digest, limit=SAMPLED)
            shapes = BaseShapes.known(self.base.path, [folder.parent / digest for digest in measured])
            shapes.check(inspect_adapter(folder))
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
    """No error: the step has measured its number of examples, and they are kept."""


class _SomeParts:
    """The engine of one step: after enough answers it stops at the next part, when the last is in the registry."""

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
