"""How our router's figures move: its guard, its calibration, and how much was profiled."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .ours import OURS
from .protocols import Fold
from .scores import reference, reliability, summary, task_scores
from .seen import see
from .table import OutcomeTable
from .trials import Job, Pool, fold_list, scores_of

Array = NDArray[np.float64]
Row = dict[str, float]
Z_GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
COMPARED = ("traitroute", "task mixture (LORAUTER)")
DRAWS = 2


@dataclass(frozen=True)
class Study:
    """The table that is studied, and the processes that answer."""

    file: Path
    table: OutcomeTable
    score: str
    pool: Pool

    @property
    def scores(self) -> Array:
        """The table's scores, (n, 1 + a)."""
        return scores_of(self.table, self.score)

    def share_of_best(self, kept: Callable[[Fold], NDArray[np.intp]], adapters: NDArray[np.intp] | None = None) -> Row:
        """Data sets left out, fitted on the rows `kept` of each fold: the share of the best adapter, of each router
        compared.
        """
        parts = fold_list(self.table, "unseen_loto")
        only = None if adapters is None else tuple(adapters.tolist())
        jobs = [
            Job(self.file, self.score, "unseen_loto", i, COMPARED, tuple(kept(f).tolist()), only)
            for i, f in enumerate(parts)
        ]
        columns = slice(None) if adapters is None else np.concatenate([[0], 1 + adapters])
        scores = self.scores[:, columns]
        answers = self.pool.answers(jobs)
        return {
            name: _figures(self.table, scores, parts, np.concatenate([a.choices[name] for a in answers]))["% of best"]
            for name in COMPARED
        }


def curves(study: Study, names: Sequence[str], console: Console) -> dict[str, Any]:
    """Compute those that are named in CURVES, and print each as it is done."""
    found: dict[str, Any] = {}
    for name in names:
        with Progress(console=console, transient=True) as progress:
            progress.add_task(name, total=None)
            found[name] = CURVES[name](study)
        _show(name, found[name], console)
    return found


def guard(study: Study) -> list[Row]:
    """Data sets left out, at a fixed z instead of the calibrated one: what the guard costs and saves."""
    table, scores = study.table, study.scores
    chosen: dict[float, list[NDArray[np.intp]]] = {z: [] for z in Z_GRID}
    parts = fold_list(table, "unseen_loto")
    for fold in parts:
        seen, asked = see(table, scores, fold, known=False)
        fitted = OURS["traitroute"].fit(seen)
        for z in Z_GRID:
            chosen[z].append(fitted.with_z(z).choose(asked))
    return [{"z": z, **_figures(table, scores, parts, np.concatenate(found))} for z, found in chosen.items()]


def calibration(study: Study, *, protocol: str) -> list[Row]:
    """Predicted against realised gain of the best-ranked adapter, in ten bins."""
    table, scores = study.table, study.scores
    predicted, realised = [], []
    for fold in fold_list(table, protocol):
        seen, asked = see(table, scores, fold, known=protocol == "in_distribution")
        columns, gains = OURS["traitroute"].fit(seen).forecast(asked)
        predicted.append(gains)
        got = scores[fold.test]
        realised.append(got[np.arange(len(columns)), columns] - got[:, 0])
    return reliability(np.concatenate(predicted), np.concatenate(realised))


def by_tasks(study: Study) -> list[Row]:
    """A data set left out, with only some of the others profiled; with and without the probes made of them."""
    table = study.table
    names = list(dict.fromkeys(np.array(table.datasets)[np.array(table.kinds) == "main"].tolist()))

    def some(fold: Fold, count: int, rng: np.random.Generator, probes: bool) -> NDArray[np.intp]:
        others = [n for n in names if n != table.dataset[fold.test[0]]]
        keep = np.isin(table.dataset[fold.fit], rng.choice(others, count, replace=False))
        return fold.fit[keep & (probes | (table.kind[fold.fit] == "main"))]

    rows = []
    for probes in (False, True):
        for count in (5, 10, 15, len(names) - 1):
            rng = np.random.default_rng(count)
            kept = partial(some, count=count, rng=rng, probes=probes)
            draws = DRAWS if count < len(names) - 1 else 1
            found = _average([study.share_of_best(kept) for _ in range(draws)])
            rows.append({"data sets": count, "with probes": float(probes), **found})
    return rows


def by_examples(study: Study) -> list[Row]:
    """A data set left out, with fewer examples of every other."""
    task = study.table.task

    def first(fold: Fold, count: int) -> NDArray[np.intp]:
        parts = [fold.fit[task[fold.fit] == t][:count] for t in np.unique(task[fold.fit])]
        return np.concatenate(parts)

    return [{"examples a task": n, **study.share_of_best(partial(first, count=n))} for n in (10, 25, 50, 100)]


def by_adapters(study: Study) -> list[Row]:
    """A data set left out, with fewer adapters to choose from."""
    rows = []
    total = len(study.table.adapters)
    for count in (3, 5, 7, total):
        rng = np.random.default_rng(count)
        draws = [np.sort(rng.choice(total, count, replace=False)) for _ in range(DRAWS if count < total else 1)]
        found = [study.share_of_best(lambda fold: fold.fit, kept) for kept in draws]
        rows.append({"adapters": count, **_average(found)})
    return rows


CURVES: dict[str, Callable[[Study], list[Row]]] = {
    "tasks": by_tasks,
    "examples": by_examples,
    "adapters": by_adapters,
    "guard": guard,
    "calibration_known": partial(calibration, protocol="in_distribution"),
    "calibration_unseen": partial(calibration, protocol="unseen_loto"),
}


def _figures(table: OutcomeTable, scores: Array, parts: Iterable[Fold], choice: NDArray[np.intp]) -> dict[str, float]:
    rows = np.concatenate([fold.test for fold in parts])
    names = np.array(table.tasks)[table.task[rows]]
    found = summary(task_scores(scores[rows], choice, reference(scores[rows], names)))
    return {
        "% of best": found["pct_of_best"],
        "gain recovered": found["gain_recovered"],
        "tasks below base": found["tasks_below_base"],
        "to base": 100 * float((choice == 0).mean()),
    }


def _average(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


def _show(title: str, rows: Sequence[dict[str, float]], console: Console) -> None:
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" for value in row.values()))
    console.print(table)
