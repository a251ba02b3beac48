"""How our router's figures move: its guard, its calibration, and how much was profiled."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from routing_baselines import BASELINES
from routing_ours import OURS
from routing_protocols import Fold, folds
from routing_scores import reference, reliability, summary, task_scores
from routing_seen import Router, see
from routing_table import OutcomeTable

Array = NDArray[np.float64]
CAUTIONS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
COMPARED = ("task mixture (LORAUTER)", "sentence ridge", "nearest examples")
DRAWS = 3


def curves(table: OutcomeTable, scores: Array, console: Console) -> dict[str, Any]:
    """Compute and print all of them."""
    found = {
        "guard": guard(table, scores),
        "calibration": {
            p: calibration(table, scores, p) for p in ("in_distribution", "unseen_loto")
        },
        "tasks": by_tasks(table, scores),
        "examples": by_examples(table, scores),
        "adapters": by_adapters(table, scores),
    }
    for name in ("guard", "tasks", "examples", "adapters"):
        _show(name, found[name], console)
    for protocol, rows in found["calibration"].items():
        _show(f"calibration, {protocol}", rows, console)
    return found


def guard(table: OutcomeTable, scores: Array) -> list[dict[str, float]]:
    """Data sets left out, at fixed cautions instead of the calibrated one: what caution costs and saves."""
    chosen: dict[float, list[NDArray[np.intp]]] = {c: [] for c in CAUTIONS}
    parts = list(folds(table, "unseen_loto"))
    for fold in parts:
        seen, asked = see(table, scores, fold, known=False)
        fitted = OURS["traitroute"].fit(seen)
        for caution in CAUTIONS:
            chosen[caution].append(fitted.with_caution(caution).choose(asked))
    return [
        {"caution": c, **_figures(table, scores, parts, np.concatenate(found))}
        for c, found in chosen.items()
    ]


def calibration(table: OutcomeTable, scores: Array, protocol: str) -> list[dict[str, float]]:
    """Predicted against realised gain of the best-ranked adapter, in ten bins."""
    predicted, realised = [], []
    for fold in folds(table, protocol):
        seen, asked = see(table, scores, fold, known=protocol == "in_distribution")
        columns, gains = OURS["traitroute"].fit(seen).forecast(asked)
        predicted.append(gains)
        got = scores[fold.test]
        realised.append(got[np.arange(len(columns)), columns] - got[:, 0])
    return reliability(np.concatenate(predicted), np.concatenate(realised))


def by_tasks(table: OutcomeTable, scores: Array) -> list[dict[str, float]]:
    """A data set left out, with only some of the others profiled; with and without the probes made of them."""
    names = list(dict.fromkeys(table.datasets))
    rows = []
    for probes in (False, True):
        for count in (5, 10, 15, 20, len(names) - 1):
            rng = np.random.default_rng(count)
            found = []
            for _ in range(DRAWS if count < len(names) - 1 else 1):
                parts = []
                for fold in folds(table, "unseen_loto"):
                    held = table.dataset[fold.test[0]]
                    kept = rng.choice([n for n in names if n != held], count, replace=False)
                    keep = np.isin(table.dataset[fold.fit], kept)
                    keep &= probes | (table.kind[fold.fit] == "main")
                    parts.append(Fold(fold.fit[keep], fold.test))
                found.append(_all(table, scores, parts))
            rows.append({"data sets": count, "with probes": float(probes), **_average(found)})
    return rows


def by_examples(table: OutcomeTable, scores: Array) -> list[dict[str, float]]:
    """A data set left out, with fewer examples of every other."""
    rows = []
    for count in (10, 25, 50, 100):
        parts = [_fewer(table, fold, count) for fold in folds(table, "unseen_loto")]
        rows.append({"examples a task": count, **_all(table, scores, parts)})
    return rows


def by_adapters(table: OutcomeTable, scores: Array) -> list[dict[str, float]]:
    """A data set left out, with fewer adapters to choose from."""
    rows = []
    for count in (3, 5, 7, len(table.adapters)):
        rng = np.random.default_rng(count)
        found = []
        for _ in range(DRAWS if count < len(table.adapters) else 1):
            kept = np.sort(rng.choice(len(table.adapters), count, replace=False))
            fewer = table.of_adapters(kept)
            columns = np.concatenate([[0], 1 + kept])
            parts = list(folds(table, "unseen_loto"))
            found.append(_all(fewer, scores[:, columns], parts))
        rows.append({"adapters": count, **_average(found)})
    return rows


def _fewer(table: OutcomeTable, fold: Fold, count: int) -> Fold:
    kept = [
        fold.fit[table.task[fold.fit] == task][:count] for task in np.unique(table.task[fold.fit])
    ]
    return Fold(np.concatenate(kept), fold.test)


def _all(table: OutcomeTable, scores: Array, parts: Sequence[Fold]) -> dict[str, float]:
    """Share of the best adapter for ours and the compared baselines."""
    routers: dict[str, Router] = {**OURS, **{n: BASELINES[n] for n in COMPARED}}
    choices: dict[str, list[NDArray[np.intp]]] = {n: [] for n in routers}
    for fold in parts:
        seen, asked = see(table, scores, fold, known=False)
        for name, router in routers.items():
            choices[name].append(router.fit(seen).choose(asked))
    return {
        name: _figures(table, scores, parts, np.concatenate(found))["% of best"]
        for name, found in choices.items()
    }


def _figures(
    table: OutcomeTable, scores: Array, parts: Iterable[Fold], choice: NDArray[np.intp]
) -> dict[str, float]:
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
