"""A smoke profile: a few examples of every task with a few adapters, to see that all runs and what a full one costs."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..adapters import AllowedSources, Cell, Registry
from ..serving import EngineName, open_engine
from ..serving.engines import Engine
from .base_model import BaseModelFolder
from .given import GivenAdapters, bring
from .matrix.everyday import REQUESTS
from .matrix.measure import matches_base, measured_cell
from .matrix.votes import count_votes
from .profile import prepare
from .tasks.suite import Suite
from .tasks.task import Task

EXAMPLES = 8
"""Examples of each task."""
MOST_ADAPTERS, MOST_TASKS = 3, 12
"""So many adapters and tasks are measured at most: the others take as long."""


@dataclass(frozen=True)
class Smoke:
    """What a smoke profile saw.

    `scores` (1 + adapters, tasks) are mean scores in [0, 1], base first, on `examples` of each task. `set_aside` says
    why adapters cannot be profiled; those of `alike` answered as base did on all these examples. The full profile asks
    for `answers`, by estimate in `full_s` seconds.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    examples: int
    scores: NDArray[np.float64]
    set_aside: dict[str, str]
    alike: tuple[str, ...]
    seconds: float
    answers: int
    full_s: float


def smoke_profile(
    suite: Suite, *, allowed: AllowedSources, engine: EngineName | None = None, examples: int = EXAMPLES
) -> Smoke:
    """Measure a few examples of a suite's tasks with some of its given adapters; nothing of it is kept.

    All adapters are fetched and checked, and all rows read.

    Raises:
        InputError: the suite, its rows, its base model, or an adapter that is required, are not as they should be.
    """
    start = time.perf_counter()
    sizes = [len(task.test_examples) for task in suite.tasks]
    few = tuple(Task.model_validate(task.model_dump() | {"test": examples}) for task in suite.tasks[:MOST_TASKS])
    prepared = prepare(suite.model_copy(update={"tasks": few}), warn=lambda text: None)
    base, tasks = prepared.base, prepared.suite.tasks
    with (
        tempfile.TemporaryDirectory(prefix="traitroute-smoke-") as folder,
        Registry.create(Path(folder) / "registry.db") as registry,
    ):
        given = bring(suite.adapters, base, registry, allowed)
        opened = open_engine(engine or suite.engine, base.path, registry.weights, given.adapters)
        try:
            rows, seconds = _measured(opened, registry, base, given, tasks)
        finally:
            opened.close()
    total_s = time.perf_counter() - start
    # The first row warms the engine up; of the others the median is no hiccup.
    answer_s = np.median(seconds[1:] if len(seconds) > 1 else seconds, axis=0)
    answers = (1 + len(given.adapters)) * (sum(sizes) + REQUESTS)
    return Smoke(
        adapters=tuple(a.name for a in given.adapters[: len(rows) - 1]),
        tasks=tuple(task.name for task in tasks),
        examples=examples,
        scores=np.array([[t.scores(c.outcomes).mean() for t, c in zip(tasks, row, strict=True)] for row in rows]),
        set_aside=given.set_aside,
        alike=tuple(row[0].adapter or "" for row in rows[1:] if matches_base(row, rows[0])),
        seconds=total_s,
        answers=answers,
        full_s=answers * float(np.average(answer_s, weights=sizes[: len(tasks)])) + total_s - _spent(seconds, tasks),
    )


def _measured(
    engine: Engine, registry: Registry, base: BaseModelFolder, given: GivenAdapters, tasks: Sequence[Task]
) -> tuple[list[list[Cell]], NDArray[np.float64]]:
    """The cells of base and some adapters, and how many seconds an answer of each took, (rows, tasks)."""
    rows: list[list[Cell]] = []
    seconds: list[list[float]] = []
    adapters = [None, *given.adapters[:MOST_ADAPTERS]]
    for adapter in adapters:
        row, took = list[Cell](), list[float]()
        for task in tasks:
            before = time.perf_counter()
            row.append(measured_cell(engine, registry, base, adapter, task))
            took.append((time.perf_counter() - before) / len(task.test_examples))
        rows.append(row)
        seconds.append(took)
    return count_votes(registry, rows, adapters, tasks), np.array(seconds)


def _spent(seconds: NDArray[np.float64], tasks: Sequence[Task]) -> float:
    """The seconds that all answers took."""
    return float((seconds * [len(task.test_examples) for task in tasks]).sum())
