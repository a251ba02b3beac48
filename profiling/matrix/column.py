"""Measure a new task: one column of the matrix, for base and every adapter of the profile, and nothing else is measured.

A task changes what requests demand, so traits and routing are fitted anew, from stored outcomes. Adapters measured in full are
measured on every example of the task; those of which a part was measured, on as large a part of it, on the anchors that the others
choose. Each finished cell is kept: a killed run goes on where it was.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ...adapters import Cell, ConflictError, InputError, Registry
from ...serving.engines import Engine
from ..base_model import BaseModelFolder
from ..refit import check_enough, fit_anew
from ..tasks.task import Task
from .anchor_row import TOLERANCE
from .measure import measured_cell
from .new_row import without
from .profiled import Profiled
from .row import SHARE
from .row_meter import MeasuredGains, RowMeter

_ATTEMPTS = 20


@dataclass(frozen=True)
class MeasuredColumns:
    """What measuring new tasks came to: the profile `version` that holds them, base's and the adapters' cells, and seconds.

    `estimates` are of adapters measured on anchors; `gone` are those whose rows left the profile, since their weights did.
    """

    version: int
    cells: tuple[Cell, ...]
    estimates: Mapping[str, MeasuredGains]
    gone: tuple[str, ...]
    seconds: float

    @property
    def examples(self) -> int:
        """How many answers were measured, base's included."""
        return sum(len(c.outcomes) for c in self.cells) + sum(
            int(found.examples.sum()) for found in self.estimates.values()
        )


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

    Of adapters that were measured on a part of their rows, up to `share` of the examples are measured, fewer where the mean
    standard error of the gains gets below `tolerance`. `on_cell` is told how many cells are done. `warnings` of the
    tasks' rows are kept with the profile.

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
            grown = _grown(profiled, columns, estimates, warnings)
            version = fit_anew(registry, grown, origin="task")
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
        """Measure base and the adapters measured in full; the profile with these tasks and cells in place of its own."""
        cells: list[Cell] = []
        for name, task in product((None, *profiled.whole), tasks):
            adapter = None if name is None else self.registry.adapter(name)
            cells.append(measured_cell(self.engine, self.registry, self.base, adapter, task))
            self.on_cell(len(cells), (1 + len(profiled.summary["adapters"])) * len(tasks))
        return replace(profiled, tasks=tuple(tasks), cells={(c.adapter, c.task): c for c in cells})

    def measure_anchors(self, columns: Profiled) -> dict[str, MeasuredGains]:
        """Measure the adapters of which a part was measured."""
        found, done, tasks = {}, len(columns.cells), len(columns.tasks)
        for name in columns.estimated:
            adapter = self.registry.adapter(name)
            meter = RowMeter(self.engine, self.registry, self.base, adapter, columns)
            meter.measure_anchors(self.share, self.tolerance)
            found[name] = meter.gains()
            self.on_cell(done + len(found) * tasks, done + len(columns.estimated) * tasks)
        return found


def check_new(tasks: Sequence[Task], profiled: Profiled, registry: Registry) -> None:
    """Check that the profile lacks the tasks.

    Raises:
        InputError: it has one, or the registry knows other examples by its name.
    """
    known = registry.task_digests()
    for task in tasks:
        if task.name in profiled.summary["tasks"]:
            raise InputError(
                f"task {task.name} is in profile version {profiled.stored.version} already: add another, or "
                "change what is asked of it under another name"
            )
        if known.get(task.name, task.digest) != task.digest:
            raise InputError(
                f"the registry knows a task {task.name} of other examples, which earlier profile versions were "
                "measured on: give this one another name"
            )


def _with_weights(registry: Registry, profiled: Profiled) -> tuple[Profiled, tuple[str, ...]]:
    """The profile of those adapters whose weights the registry still has, and the names of the others."""
    now = {a.name: a.weights_digest for a in registry.adapters()}
    then = profiled.summary.get("weights", {})
    names = profiled.summary["adapters"]
    gone = tuple(n for n in names if n not in now or then.get(n, now[n]) != now[n])
    if not gone:
        return profiled, gone
    keys = {key for name in gone for key in profiled.keys(name)}
    summary = without(profiled.stored, gone, keys).summary
    return replace(profiled, stored=replace(profiled.stored, summary=summary)), gone


def _grown(
    profiled: Profiled,
    columns: Profiled,
    estimates: Mapping[str, MeasuredGains],
    warnings: Sequence[str],
) -> Profiled:
    """The profile with the columns' tasks more, which its traits were not fitted to."""
    summary, tasks = profiled.summary, columns.tasks
    base = np.array([columns.cells[None, t.name].score for t in tasks])
    scores = [
        [*row, *(base + estimates[name].gains if name in estimates else _scores(columns, name))]
        for name, row in zip(summary["adapters"], summary["scores"], strict=True)
    ]
    estimated = {
        name: {
            "errors": [*row["errors"], *estimates[name].errors.tolist()],
            "examples": [*row["examples"], *estimates[name].examples.tolist()],
        }
        for name, row in profiled.estimated.items()
    }
    grown: dict[str, Any] = {
        "tasks": [*summary["tasks"], *(t.name for t in tasks)],
        "base": [*summary["base"], *base],
        "scores": scores,
        "loadings": [[*row, *(0.0 for _ in tasks)] for row in summary["loadings"]],
        "cells": [*summary["cells"], *(cell.key for cell in columns.cells.values())],
        "estimated": estimated,
        "warnings": [*summary.get("warnings", []), *warnings],
    }
    return Profiled(
        replace(profiled.stored, summary=summary | grown),
        (*profiled.tasks, *tasks),
        {**profiled.cells, **columns.cells},
    )


def _scores(columns: Profiled, adapter: str) -> list[float]:
    return [columns.cells[adapter, t.name].score for t in columns.tasks]
