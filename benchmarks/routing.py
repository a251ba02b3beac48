"""Which router chooses best? Ours against every baseline, from measured outcomes; no model is run.

    python benchmarks/routing.py                                the table, from the committed outcomes
    python benchmarks/routing.py --json out.json                and every figure as JSON
    python benchmarks/routing.py --score lenient --only traitroute,base --protocols unseen_loto
    python benchmarks/routing.py --outcomes my.safetensors      over outcomes of your own (see outcomes.py)
    python benchmarks/routing.py --ablations                    what each part of our router is worth
    python benchmarks/routing.py --curves                       against the number of profiled tasks, examples, adapters

100% is the best adapter of each task, chosen on one half of the task's examples and scored on the other. What each
protocol holds out is said in routing_protocols.py.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from routing_baselines import BASELINES, Router, see
from routing_ours import ABLATIONS, OURS
from routing_protocols import PROTOCOLS, folds
from routing_scores import Reference, TaskScores, paired_p, reference, summary, task_scores
from routing_table import OutcomeTable

HERE = Path(__file__).parent
OUTCOMES = HERE / "routing_outcomes.safetensors"
NEW_TASKS = ("unseen_loto", "unseen_sources_only")
SINGLE = "best single adapter"


@dataclass(frozen=True)
class Trial:
    """One protocol: the rows scored, in the order of its folds, and what each router chose there."""

    scores: NDArray[np.float64]
    against: Reference
    found: dict[str, TaskScores]
    choices: dict[str, NDArray[np.intp]]
    seconds: dict[str, float]


def run(
    table: OutcomeTable,
    scores: NDArray[np.float64],
    protocol: str,
    routers: Mapping[str, Router],
    advance: Callable[[], None] = lambda: None,
) -> Trial:
    """Fit and ask every router in every fold of `protocol`."""
    parts = list(folds(table, protocol))
    rows = np.concatenate([fold.test for fold in parts])
    # A task asked of several new adapters counts once for each.
    tasks = np.concatenate([_task_names(table, fold.test, fold.new) for fold in parts])
    choices: dict[str, list[NDArray[np.intp]]] = {name: [] for name in routers}
    seconds = dict.fromkeys(routers, 0.0)
    for fold in parts:
        seen, asked = see(table, scores, fold, known=protocol not in NEW_TASKS)
        for name, router in routers.items():
            start = time.perf_counter()
            choices[name].append(router.fit(seen).choose(asked))
            seconds[name] += time.perf_counter() - start
            advance()
    against = reference(scores[rows], tasks)
    chosen = {name: np.concatenate(parts) for name, parts in choices.items()}
    found = {name: task_scores(scores[rows], choice, against) for name, choice in chosen.items()}
    return Trial(scores[rows], against, found, chosen, seconds)


def _task_names(table: OutcomeTable, rows: NDArray[np.intp], new: int | None) -> NDArray[np.str_]:
    names = np.array(table.tasks)[table.task[rows]]
    return names if new is None else np.array([f"{table.adapters[new]}: {n}" for n in names])


def oracles(trial: Trial) -> dict[str, TaskScores]:
    """What could be had: the best column of each task, in hindsight, and of each example."""
    task_best = np.zeros(len(trial.scores), dtype=np.intp)
    for members in trial.against.members:
        task_best[members] = trial.scores[members].mean(axis=0).argmax()
    means = np.array([trial.scores[m].mean(axis=0) for m in trial.against.members])
    single = np.full(len(trial.scores), means.mean(axis=0).argmax(), dtype=np.intp)
    choices = {
        "(best single adapter in hindsight)": single,
        "(oracle per task)": task_best,
        "(oracle per example)": trial.scores.argmax(axis=1),
    }
    return {n: task_scores(trial.scores, c, trial.against) for n, c in choices.items()}


def figures(trial: Trial) -> dict[str, dict[str, Any]]:
    """The JSON of one protocol."""
    single = trial.found.get(SINGLE)
    result = {}
    for name, found in {**trial.found, **oracles(trial)}.items():
        result[name] = summary(found)
        if name in trial.choices:
            result[name]["base_share"] = float((trial.choices[name] == 0).mean())
            result[name]["fit_seconds"] = round(trial.seconds[name], 2)
        if single is not None and name != SINGLE:
            result[name]["p_vs_best_single"] = paired_p(found.achieved, single.achieved)
    return result


def show(protocol: str, found: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print one protocol's table."""
    doc = (PROTOCOLS[protocol].__doc__ or "").splitlines()[0]
    table = Table(title=f"{protocol}: {doc}", title_justify="left")
    table.add_column("router", overflow="fold")
    for column in (
        "% of best [95%]",
        "% of naive",
        "gain recovered [95%]",
        "below base",
        "top-1",
        "regret p90",
        "to base",
        "p > single",
    ):
        table.add_column(column, justify="right")
    for name, f in found.items():
        table.add_row(
            name,
            f"{f['pct_of_best']:.1f} {_interval(f['pct_of_best_ci'])}",
            f"{f['pct_of_naive_best']:.1f}",
            f"{f['gain_recovered']:.0f} {_interval(f['gain_recovered_ci'])}",
            f"{f['tasks_below_base']}/{f['tasks']}",
            f"{f['top1_agreement']:.2f}",
            f"{f['regret']['p90']:.2f}",
            f"{100 * f['base_share']:.0f}%" if "base_share" in f else "",
            f"{f['p_vs_best_single']:.3f}" if "p_vs_best_single" in f else "",
            style="bold" if name == "traitroute" else "",
        )
    console.print(table)


def _interval(ends: list[float]) -> str:
    return f"[{ends[0]:.0f}, {ends[1]:.0f}]"
