"""The steps of a job: find the adapter, measure its row and the base model's cell by cell, and admit it.

Each step may be done again after a crash, and finds what was finished before it: a cell under its key, an adapter that is
ready. A lock for each cell keeps two workers from measuring it at the same time, for two adapters' jobs share the base
model's cells, and two names may share weights.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field

from ...adapters import (
    Adapter,
    AdapterState,
    Cell,
    ConflictError,
    InputError,
    Registry,
    SilentAdapterError,
)
from ...serving.engines.openai import OpenAIEngine
from ..base_model import BaseModelFolder
from ..measure import cell_key, measure_cell, says_what_base_says
from ..task import Task
from .joining import join_row
from .locks import Locks
from .pending import is_replacement, pending
from .told import Told, WithdrawnError


@dataclass
class RowSteps:
    """Measures rows of `registry` on `engine`, for adapters of `base`."""

    registry: Registry
    engine: OpenAIEngine
    base: BaseModelFolder
    locks: Locks
    _tasks: dict[str, Task] = field(default_factory=dict)

    def find(self, name: str, weights: str) -> Told:
        """Check that the adapter is one that can be measured here, and that the server knows it by now."""
        adapter = self._pending(name, weights)
        if adapter.base_digest != self.base.digest:
            reason = f"it was trained for {adapter.base_model}, not for {self.base.name}"
            return {"refused": f"adapter {name}: {reason}, which the profile's adapters are for"}
        self.engine.check_offered(adapter)
        return {}

    def measure(self, name: str, weights: str, task_name: str, *, base: bool) -> Told:
        """Measure one cell, unless it is there: the adapter's, or with `base` the base model's."""
        adapter = self._pending(name, weights)
        who, task = None if base else adapter, self._task(task_name)
        key = self._key(who, task)
        start = time.monotonic()
        with self.locks.wait(f"cell {key}"):
            found = self.registry.find_cell(key)
            outcomes = found.outcomes if found else measure_cell(self.engine, who, task)
            # Named anew: the cell may have been measured when the same weights had another name.
            self.registry.put_cell(Cell(key, None if base else name, task_name, outcomes))
        return {"cell": key, "found": found is not None, "seconds": time.monotonic() - start}

    def admit(self, name: str, weights: str, tasks: list[str]) -> Told:
        """Open the adapter to routing, in one transaction with the profile that knows it.

        Raises:
            InputError: the profile was fitted anew on other tasks meanwhile.
        """
        adapter = self._pending(name, weights)
        row, base_row = self._row(adapter, tasks), self._row(None, tasks)
        if says_what_base_says(row, base_row):
            self.registry.remove_cells([cell.key for cell in row])
            raise SilentAdapterError(
                f"adapter {name} answered exactly as the base model on all {len(row)} tasks: it was not applied, or "
                "its weights do nothing; its row was not kept"
            )
        while True:
            stored = self.registry.latest_profile()
            if stored is None:
                raise InputError("the registry holds no profile any more: run `traitroute profile`")
            joined = join_row(stored, adapter, row, base_row)
            with suppress(ConflictError):
                version = self.registry.admit(
                    adapter, joined.data, joined.summary, parent=stored.version
                )
                return {"version": version}
            # Another row came first, and this one joins it, unless the adapter itself was changed.
            adapter = self._pending(name, weights)

    def set_aside(self, name: str, weights: str, reason: str) -> Told:
        """Disable the adapter, or give up the replacement, and note why."""
        adapter = self._pending(name, weights)
        if is_replacement(self.registry, adapter):
            self.registry.withdraw_replacement(
                name, note=f"its replacement was set aside: {reason}"
            )
        else:
            self.registry.set_state(name, AdapterState.DISABLED, note=reason, expected=adapter)
        return {}

    def _row(self, who: Adapter | None, tasks: list[str]) -> list[Cell]:
        keys = [self._key(who, self._task(task)) for task in tasks]
        found = {cell.key: cell for cell in self.registry.cells(keys=keys)}
        if missing := [t for t, key in zip(tasks, keys, strict=True) if key not in found]:
            raise InputError(f"the cells of {', '.join(missing)} were removed meanwhile: try again")
        return [found[key] for key in keys]

    def _key(self, who: Adapter | None, task: Task) -> str:
        return cell_key(self.base.digest, who, task.digest, self.engine.name)

    def _pending(self, name: str, weights: str) -> Adapter:
        for adapter in pending(self.registry):
            if (adapter.name, adapter.weights_digest) == (name, weights):
                return adapter
        raise WithdrawnError(f"adapter {name} was removed, replaced, enabled or disabled meanwhile")

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
