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
from .scores import data_set_scores, reliability, summary
from .seen import see
from .table import OutcomeTable
from .trials import OUR_NAME, Job, Pool, against, complete_table, fold_list, scores_of

Array = NDArray[np.float64]
Row = dict[str, float]
Z_GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
COMPARED = (OUR_NAME, "best single adapter", "task mixture (LORAUTER)", "sentence ridge", "best stack")
GROUPS, ROWS, ADAPTERS = (10, 20, 40), (5, 10, 20), (4, 8, 12)
DRAWS = 2
NEW = "group_left_out"


@dataclass(frozen=True)
class Study:
    """The table in `file` by one score, and the processes that answer."""

    file: Path
    score: str
    pool: Pool

    @property
    def table(self) -> OutcomeTable:
        """The table."""
        return complete_table(self.file)

    @property
    def scores(self) -> Array:
        """The table's scores, (n, 1 + a)."""
        return scores_of(self.table, self.score)

    def share_of_best(self, kept: Callable[[Fold], NDArray[np.intp]], adapters: NDArray[np.intp] | None = None) -> Row:
        """Groups left out, fitted on the rows `kept` of each fold: the share of the best, of each router compared."""
        parts = fold_list(self.table, NEW)
        only = None if adapters is None else tuple(adapters.tolist())
        jobs = [
            Job(self.file, NEW, i, COMPARED, (self.score,), tuple(kept(f).tolist()), only) for i, f in enumerate(parts)
        ]
        columns = slice(None) if adapters is None else np.concatenate([[0], 1 + adapters])
        found = [a.choices[self.score] for a in self.pool.answers(jobs)]
        choices = {name: np.concatenate([f[name] for f in found]) for name in COMPARED}
        scores = self.scores[:, columns]
        return {name: _figures(self.table, scores, parts, c)["% of best"] for name, c in choices.items()}


def curves(study: Study, names: Sequence[str], console: Console) -> dict[str, Any]:
    """Compute those that are named in CURVES, and print each as it is done."""
    found: dict[str, Any] = {}
    for name in names:
        with Progress(console=console, transient=True) as progress:
            progress.add_task(name, total=None)
            found[name] = CURVES[name](study)
        _show(f"{name} ({study.score})", found[name], console)
    return found


def guard(study: Study) -> list[Row]:
    """Groups left out, at a fixed z instead of the calibrated one: what the guard costs and saves."""
    table, scores = study.table, study.scores
    chosen: dict[float, list[NDArray[np.intp]]] = {z: [] for z in Z_GRID}
    parts = fold_list(table, NEW)
    for fold in parts:
        seen, asked = see(table, scores, fold)
        fitted = OURS[OUR_NAME].fit(seen)
        for z in Z_GRID:
            chosen[z].append(fitted.with_z(z).choose(asked))
    return [{"z": z, **_figures(table, scores, parts, np.concatenate(found))} for z, found in chosen.items()]


def calibration(study: Study, *, protocol: str) -> list[Row]:
    """Predicted against realised gain of the best-ranked adapter, in ten bins."""
    table, scores = study.table, study.scores
    predicted, realised = [], []
    for fold in fold_list(table, protocol):
        seen, asked = see(table, scores, fold)
        columns, gains = OURS[OUR_NAME].fit(seen).forecast(asked)
        predicted.append(gains)
        got = scores[fold.test]
        realised.append(got[np.arange(len(columns)), columns] - got[:, 0])
    return reliability(np.concatenate(predicted), np.concatenate(realised))


def by_groups(study: Study) -> list[Row]:
    """A group left out, with only some of the others profiled."""
    table = study.table

    def some(fold: Fold, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        groups = table.group[fold.fit]
        names = np.unique(groups)
        return fold.fit[np.isin(groups, rng.permutation(names)[:count])]

    most = min(len(np.unique(table.group[fold.fit])) for fold in fold_list(table, NEW))
    rows = []
    for count in sorted({min(count, most) for count in GROUPS}):
        rng = np.random.default_rng(count)
        draws = DRAWS if count < most else 1
        kept = partial(some, count=count, rng=rng)
        rows.append({"groups": count, **_average([study.share_of_best(kept) for _ in range(draws)])})
    return rows


def by_rows(study: Study) -> list[Row]:
    """A group left out, with fewer rows of every data set."""
    task = study.table.task

    def first(fold: Fold, count: int) -> NDArray[np.intp]:
        parts = [fold.fit[task[fold.fit] == t][:count] for t in np.unique(task[fold.fit])]
        return np.concatenate(parts)

    most = int(np.bincount(task).max())
    return [{"rows": n, **study.share_of_best(partial(first, count=n))} for n in (*ROWS, most)]


def by_adapters(study: Study) -> list[Row]:
    """A group left out, with fewer adapters to choose from."""
    rows = []
    total = len(study.table.adapters)
    for count in [*(n for n in ADAPTERS if n < total), total]:
        rng = np.random.default_rng(count)
        draws = [np.sort(rng.choice(total, count, replace=False)) for _ in range(DRAWS if count < total else 1)]
        found = [study.share_of_best(lambda fold: fold.fit, kept) for kept in draws]
        rows.append({"adapters": count, **_average(found)})
    return rows


CURVES: dict[str, Callable[[Study], list[Row]]] = {
    "groups": by_groups,
    "rows": by_rows,
    "adapters": by_adapters,
    "guard": guard,
    "calibration_known": partial(calibration, protocol="new_rows"),
    "calibration_unseen": partial(calibration, protocol=NEW),
}


def _figures(table: OutcomeTable, scores: Array, parts: Iterable[Fold], choice: NDArray[np.intp]) -> dict[str, float]:
    rows = np.concatenate([fold.test for fold in parts])
    found = summary(data_set_scores(scores[rows], choice, against(table, scores[rows], rows)))
    return {
        "% of best": found["pct_of_best"],
        "gain recovered": found["gain_recovered"],
        "groups below base": found["groups_below_base"],
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
