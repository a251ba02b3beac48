"""Which sources are worth an adapter of a large base model, as a small one tells.

Every source is trained and measured on the small base first, which has to cost well below half as much. Those are kept
that bring most together: one after the other the source that raises most what is reached, the mean over the tasks of
the best score that base and the kept adapters have there. Taken one by one so, they reach 63% at the least of what the
best as many could (Nemhauser, Wolsey and Fisher, Mathematical Programming 14, 1978). docs/compare.md says how much of
what all adapters of a larger base can do those that a small one chose have kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from ..adapters import InputError, Registry
from ..serving import EngineName
from .base_model import open_base_model
from .execution.executor import Executor
from .profile import prepare, profile_prepared
from .tasks.suite import Suite

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scouted:
    """A source that a small base chose, and what share of the gain of all sources it and those before it bring."""

    source: str
    reached: float


def choose(base: Array, scores: Array, count: int) -> list[int]:
    """Places of `count` adapters, the best first, by scores of `base` (tasks,) and of adapters (adapters, tasks)."""
    best, chosen = base, list[int]()
    for _ in range(min(count, len(scores))):
        with_each = np.maximum(best, scores).mean(axis=1)
        with_each[chosen] = -np.inf
        chosen.append(int(with_each.argmax()))
        best = np.maximum(best, scores[chosen[-1]])
    return chosen


def reached(base: Array, scores: Array) -> float:
    """The mean over tasks of the best score there, by scores of `base` (tasks,) and of adapters (adapters, tasks)."""
    return float(np.maximum(base, scores.max(axis=0, initial=-np.inf)).mean())


def scout(
    suite: Suite,
    base: str,
    folder: Path,
    *,
    keep: int | None = None,
    engine: EngineName | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> list[Scouted]:
    """Profile the sources of `suite` on the small `base` in `folder`, where a killed run goes on, and choose `keep` of
    them, by default half, and two at the least.

    Raises:
        InputError: there is nothing to choose from, or the base is the suite's own; and what `profile` raises.
    """
    sources = suite.sources
    count = max((len(sources) + 1) // 2, 2) if keep is None else keep
    if count >= len(sources):
        raise InputError(f"the suite has {len(sources)} sources, of which {count} are to be kept: leave out --scout")
    small = prepare(suite.model_copy(update={"base_model": base, "adapters": (), "ablations": ()}))
    if small.base.digest == open_base_model(suite.base_model).digest:
        raise InputError(f"--scout {base} is the base model of the suite itself: give a smaller one")
    folder.mkdir(parents=True, exist_ok=True)
    with Registry.create(folder / "registry.db") as registry:
        found = profile_prepared(small, registry, folder / "runs", engine=engine, executor=executor, progress=progress)
    matrix = found.matrix
    chosen = choose(matrix.base, matrix.scores, count)
    nothing, everything = float(matrix.base.mean()), reached(matrix.base, matrix.scores)
    if everything <= nothing:
        raise InputError(
            f"on {base} no source gains on any task, so it can choose none: leave out --scout, or try another"
        )
    return [
        Scouted(
            matrix.adapters[place],
            (reached(matrix.base, matrix.scores[chosen[: i + 1]]) - nothing) / (everything - nothing),
        )
        for i, place in enumerate(chosen)
    ]


def with_sources(suite: Suite, names: Sequence[str]) -> Suite:
    """The suite with an adapter for each of these sources alone; the other tasks are still measured."""
    tasks = tuple(t if t.name in names else t.model_copy(update={"source": False}) for t in suite.tasks)
    ablations = tuple(a for a in suite.ablations if a.of in names)
    return suite.model_copy(update={"tasks": tasks, "ablations": ablations})
