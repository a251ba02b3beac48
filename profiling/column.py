"""Measure new tasks: columns of the matrix, for base and every adapter of the profile; nothing else is measured.

A task changes what requests demand, so traits and routing are fitted again, from stored outcomes. Adapters measured in
full are measured on every example of the task. Adapters measured on a part of their rows are measured on as large a
part of it, on anchors chosen by the others. Each finished cell is kept: a killed run continues where it was.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ..adapters import Cell, ConflictError, InputError, Registry
from ..serving.engines import Engine
from .base_model import BaseModelFolder
from .fit import check_enough, fit_again
from .matrix.anchors import TOLERANCE
from .matrix.measure import measured_cell
from .matrix.profiled import MeasuredGains, Profiled
from .matrix.row import SHARE, RowMeter
from .matrix.votes import count_votes
from .tasks.task import Task, check_distinct

_ATTEMPTS = 20


@dataclass(frozen=True)
class MeasuredColumns:
    """New tasks that were measured: the profile `version` that holds them, base's and the adapters' cells, and seconds.

    `estimates` are of adapters measured on anchors. The rows of the adapters `gone` left the profile, since their
    weights were replaced or removed.
    """

    version: int
    cells: tuple[Cell, ...]
    estimates: Mapping[str, MeasuredGains]
    gone: tuple[str, ...]
    seconds: float

    @property
    def examples(self) -> int:
        """How many answers were measured, base's included."""
        estimated = sum(int(row.examples.sum()) for row in self.estimates.values())
        return estimated + sum(len(c.outcomes) for c in self.cells)


def measure_columns(
    tasks: Sequence[Task],
    engine: Engine,
    registry: Registry,
    base: BaseModelFolder,
    *,
    share: float = SHARE,
    tolerance: float = TOLERANCE,
    on_cell: Callable[[int, int], None] = lambda done, of: None,
    warnings: Sequence[str] = (),
) -> MeasuredColumns:
    """Measure base and every adapter of the newest profile on `tasks`, and fit the profile with them.

    Of adapters that were measured on a part of their rows, up to `share` of the examples are measured, fewer where the
    mean standard error of the gains gets below `tolerance`. `on_cell` is called with the number of cells done, and of
    how many. `warnings` of the tasks' rows are kept with the profile.

    Raises:
        InputError: a task is profiled already, or too few rows were measured in full to fit.
        ConflictError: the profile changed again and again meanwhile.
    """
    start = time.monotonic()
    meter = _ColumnMeter(engine, registry, base, share, tolerance, on_cell)
    for _ in range(_ATTEMPTS):
        profiled, gone = _with_weights(registry, Profiled.open(registry))
        check_new(tasks, profiled, registry)
        check_enough(profiled)
        columns = meter.measure_whole(profiled, tasks)
        estimates = meter.measure_anchors(columns)
        for task in tasks:
            registry.put_task(task.name, task.digest, task.model_dump(mode="json"))
        try:
            grown = _with_columns(profiled, columns, estimates)
            version = fit_again(registry, grown, warnings=warnings, origin="task")
        except ConflictError:
            # A row joined meanwhile: it is measured on the tasks too, and what is measured already costs nothing.
            continue
        cells = tuple(columns.cells.values())
        return MeasuredColumns(version, cells, estimates, gone, time.monotonic() - start)
    names = ", ".join(task.name for task in tasks)
    raise ConflictError(f"the profile changed {_ATTEMPTS} times while {names} joined it: try again")


@dataclass(frozen=True)
class _ColumnMeter:
    """Measures adapters of a profile on tasks that it lacks."""

    engine: Engine
    registry: Registry
    base: BaseModelFolder
    share: float
    tolerance: float
    on_cell: Callable[[int, int], None]

    def measure_whole(self, profiled: Profiled, tasks: Sequence[Task]) -> Profiled:
        """Measure base and the adapters measured in full; return the profile with these tasks and cells only."""
        adapters = [None, *map(self.registry.adapter, profiled.whole)]
        rows: list[list[Cell]] = [[] for _ in adapters]
        for done, ((row, adapter), task) in enumerate(product(zip(rows, adapters, strict=True), tasks), start=1):
            row.append(measured_cell(self.engine, self.registry, self.base, adapter, task))
            self.on_cell(done, (1 + len(profiled.summary.adapters)) * len(tasks))
        counted = count_votes(self.registry, rows, adapters, tasks)
        return replace(profiled, tasks=tuple(tasks), cells={(c.adapter, c.task): c for row in counted for c in row})

    def measure_anchors(self, columns: Profiled) -> dict[str, MeasuredGains]:
        """Measure the adapters of which a part was measured."""
        estimates, done, tasks = {}, len(columns.cells), len(columns.tasks)
        for name in columns.estimated:
            adapter = self.registry.adapter(name)
            meter = RowMeter(self.engine, self.registry, self.base, adapter, columns)
            meter.measure_anchors(self.share, self.tolerance)
            estimates[name] = meter.gains()
            self.on_cell(done + len(estimates) * tasks, done + len(columns.estimated) * tasks)
        return estimates


def check_new(tasks: Sequence[Task], profiled: Profiled, registry: Registry) -> None:
    """Check that the profile lacks the tasks, and can measure them.

    Raises:
        InputError: it has one, under whatever name; the registry knows other examples by its name; or it is scored by
            votes, and the profile has too few voters.
    """
    if (voted := [t.name for t in tasks if t.metric.by_votes]) and len(profiled.whole) < 2:
        raise InputError(
            f"task {voted[0]} is scored by what the others answer, and the profile has {len(profiled.whole)} adapters "
            "that were measured in full: it takes two at least; name another metric (format, or judge)"
        )
    known = registry.task_digests()
    for task in tasks:
        if task.name in profiled.summary.tasks:
            raise InputError(
                f"task {task.name} is in profile version {profiled.stored.version} already: add another, or "
                "change what is asked of it under another name"
            )
        if known.get(task.name, task.digest) != task.digest:
            raise InputError(
                f"the registry knows a task {task.name} of other examples, which earlier profile versions were "
                "measured on: give this one another name"
            )
    check_distinct(tasks, beside=profiled.tasks)


def _with_weights(registry: Registry, profiled: Profiled) -> tuple[Profiled, tuple[str, ...]]:
    """The profile of those adapters whose weights the registry still has, and the names of the others."""
    now = {a.name: a.weights_digest for a in registry.adapters()}
    then = profiled.summary.weights
    gone = tuple(name for name in profiled.summary.adapters if now.get(name) != then[name])
    if not gone:
        return profiled, gone
    keys = {key for name in gone for key in profiled.keys(name)}
    kept = replace(
        profiled,
        cells={place: cell for place, cell in profiled.cells.items() if place[0] not in gone},
        estimated={name: row for name, row in profiled.estimated.items() if name not in gone},
        summary=profiled.summary.without(gone, keys),
    )
    return kept, gone


def _with_columns(profiled: Profiled, columns: Profiled, estimates: Mapping[str, MeasuredGains]) -> Profiled:
    """The profile with the columns' tasks too, which its traits were not fitted to."""
    estimated = {
        name: MeasuredGains(
            np.append(row.gains, estimates[name].gains),
            np.append(row.errors, estimates[name].errors),
            np.append(row.examples, estimates[name].examples),
        )
        for name, row in profiled.estimated.items()
    }
    return replace(
        profiled,
        tasks=(*profiled.tasks, *columns.tasks),
        cells={**profiled.cells, **columns.cells},
        estimated=estimated,
    )
