"""Length habits: whether what an adapter writes is as long as the base model's answers or as its source's.

The lengths of a source are those of its gold answers in the test split, counted with the base model's
tokens in the base model's own cell; training answers are drawn from the same data set, but their tokens
are not kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..analysis.lengths import (
    LengthHabit,
    LengthSummary,
    density,
    habit,
    length_grid,
    summarise,
    wasserstein,
)
from ..study import Study
from .missing import Missing

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lengths:
    """Densities (points,) of an adapter's output lengths on the source tasks other than its own.

    Per unit of log1p(tokens) at `grid` (points,), beside those of the base model on the same prompts and
    of the source's gold answers.
    """

    grid: Array
    base: Array
    source: Array
    adapter: Array


@dataclass(frozen=True)
class LengthFindings:
    """Habits and distances to the target's gold answers (tokens) by adapter and source task.

    `outputs` holds the lengths written by adapter (None: the base model) and source task, `sources` those
    of each source's gold answers.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    habits: Mapping[tuple[str, str], LengthHabit]
    to_target: Mapping[tuple[str, str], float]
    outputs: Mapping[tuple[str | None, str], LengthSummary]
    sources: Mapping[str, LengthSummary]
    densities: Mapping[str, Lengths]

    @property
    def elsewhere(self) -> dict[tuple[str, str], LengthHabit]:
        """Habits on the source tasks that are not the adapter's own."""
        return {pair: found for pair, found in self.habits.items() if pair[0] != pair[1]}


def find_lengths(study: Study, *, n_resamples: int = 400, seed: int = 0) -> LengthFindings | Missing:
    """Place the output lengths of every adapter on every source task between base model and source."""
    tasks = tuple(t for t in study.tasks if t in study.adapters)
    if not tasks:
        return Missing("no adapter was trained on a task of this profile, so no source's lengths are known")
    adapters = tuple(a for a in study.adapters if a in tasks)
    gold = {t: study.outcomes[None, t].target_tokens for t in tasks}
    limits = {t: study.tasks[t].max_tokens for t in tasks}
    pairs = [(a, t) for a in adapters for t in tasks]
    wrote = {(a, t): study.outcomes[a, t].output_tokens for a in (None, *adapters) for t in tasks}
    return LengthFindings(
        adapters=adapters,
        tasks=tasks,
        habits={
            (a, t): habit(
                wrote[None, t],
                gold[a],
                wrote[a, t],
                limit=limits[t],
                n_resamples=n_resamples,
                seed=seed,
            )
            for a, t in pairs
        },
        to_target={(a, t): wasserstein(wrote[a, t], gold[t], limit=limits[t]) for a, t in pairs},
        outputs={(a, t): summarise(n, limit=limits[t]) for (a, t), n in wrote.items()},
        sources={t: summarise(n) for t, n in gold.items()},
        densities={a: _densities(a, tasks, wrote, gold[a]) for a in adapters},
    )


def _densities(
    adapter: str,
    tasks: tuple[str, ...],
    wrote: Mapping[tuple[str | None, str], NDArray],
    source: NDArray,
) -> Lengths:
    others = [t for t in tasks if t != adapter] or list(tasks)
    by_adapter, by_base = (np.concatenate([wrote[name, t] for t in others]) for name in (adapter, None))
    grid = length_grid(by_adapter, by_base, source)
    return Lengths(grid, *(density(sample, grid) for sample in (by_base, source, by_adapter)))
