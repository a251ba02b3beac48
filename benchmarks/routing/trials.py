"""Fit and ask every router in every fold of a protocol, in as many processes as there are cores, and score them."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .baselines import BASELINES
from .ours import ABLATIONS, OURS, SEEDS
from .protocols import Fold, folds
from .scores import Reference, TaskScores, paired_p, reference, summary, task_scores
from .seen import Router, see
from .table import OutcomeTable

Array = NDArray[np.float64]
Choice = NDArray[np.intp]
ROUTERS: dict[str, Router] = {**OURS, **BASELINES, **ABLATIONS, **SEEDS}
NEW_TASKS = ("unseen_loto", "unseen_sources_only", "confirmation")
SINGLE = "best single adapter"


@dataclass(frozen=True)
class Job:
    """One fold of a protocol over the table in `file`, and the routers to ask there.

    Where given, only the rows `fit` are fitted on, and only `adapters` are there to choose from.
    """

    file: Path
    score: str
    protocol: str
    fold: int
    routers: tuple[str, ...]
    fit: tuple[int, ...] | None = None
    adapters: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Answers:
    """The columns that each router chose for the rows of a fold, and the seconds it took."""

    choices: dict[str, Choice]
    seconds: dict[str, float]


def answer(job: Job) -> Answers:
    """Fit the routers of a job in their order, and ask them."""
    table = _table(job.file)
    if job.adapters is not None:
        table = table.of_adapters(np.array(job.adapters))
    fold = fold_list(table, job.protocol)[job.fold]
    if job.fit is not None:
        fold = replace(fold, fit=np.array(job.fit))
    scores = scores_of(table, job.score)
    seen, asked = see(table, scores, fold, known=job.protocol not in NEW_TASKS)
    found = Answers({}, {})
    for name in job.routers:
        start = time.perf_counter()
        found.choices[name] = ROUTERS[name].fit(seen).choose(asked)
        found.seconds[name] = time.perf_counter() - start
    return found


@cache
def _table(file: Path) -> OutcomeTable:
    return OutcomeTable.load(file)


def scores_of(table: OutcomeTable, score: str) -> Array:
    """The table's strict or lenient scores, (n, 1 + a)."""
    return getattr(table, score).astype(np.float64)


def fold_list(table: OutcomeTable, protocol: str) -> list[Fold]:
    """The folds of a protocol for which the table has requests."""
    return [fold for fold in folds(table, protocol) if len(fold.test) and len(fold.fit)]


class Pool:
    """Processes that answer jobs; use as a context."""

    def __init__(self, processes: int) -> None:
        # One thread each: what is computed here is too small to be shared out.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def answers(self, jobs: Sequence[Job], advance: Callable[[], None] = lambda: None) -> list[Answers]:
        """The answers of `jobs`, in their order; `advance` is called after each."""
        waiting = [self._pool.submit(answer, job) for job in jobs]
        for future in waiting:
            future.add_done_callback(lambda _: advance())
        return [future.result() for future in waiting]


@dataclass(frozen=True)
class Trial:
    """One protocol: the rows scored, in the order of its folds, and what each router chose there."""

    rows: Choice
    scores: Array
    tasks: NDArray[np.str_]
    against: Reference
    choices: dict[str, Choice]
    seconds: dict[str, float]

    @classmethod
    def of(cls, table: OutcomeTable, scores: Array, protocol: str, answers: Sequence[Answers]) -> "Trial":
        """Put together what was answered in the folds of `protocol`."""
        parts = fold_list(table, protocol)
        rows = np.concatenate([fold.test for fold in parts])
        tasks = np.concatenate([_task_names(table, fold, protocol) for fold in parts])
        names = list(answers[0].choices)
        return cls(
            rows=rows,
            scores=scores[rows],
            tasks=tasks,
            against=reference(scores[rows], tasks),
            choices={n: np.concatenate([a.choices[n] for a in answers]) for n in names},
            seconds={n: sum(a.seconds[n] for a in answers) for n in names},
        )

    def found(self, choice: Choice) -> TaskScores:
        """What a choice of columns scores."""
        return task_scores(self.scores, choice, self.against)


def _task_names(table: OutcomeTable, fold: Fold, protocol: str) -> NDArray[np.str_]:
    """What counts as one task: of agent traffic a data set in all its forms, of a new adapter each task anew."""
    if protocol == "agent":
        return table.dataset[fold.test]
    names = np.array(table.tasks)[table.task[fold.test]]
    if fold.new is None:
        return names
    return np.array([f"{table.adapters[fold.new]}: {n}" for n in names])


def run(table: OutcomeTable, scores: Array, protocol: str, routers: Mapping[str, Router]) -> Trial:
    """Fit and ask every router in every fold of `protocol`, in this process."""
    answers = []
    for fold in fold_list(table, protocol):
        seen, asked = see(table, scores, fold, known=protocol not in NEW_TASKS)
        choices = {name: router.fit(seen).choose(asked) for name, router in routers.items()}
        answers.append(Answers(choices, dict.fromkeys(choices, 0.0)))
    return Trial.of(table, scores, protocol, answers)


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
    return {name: trial.found(choice) for name, choice in choices.items()}


def mixed(table: OutcomeTable, trial: Trial, score: str) -> dict[str, TaskScores]:
    """PEFT's Arrow, which answers by a mixture and not by a choice, and the best choosers on the same rows."""
    right = table.arrow[trial.rows, ("strict", "lenient").index(score)]
    kept = np.flatnonzero(right >= 0)
    if not len(kept):
        return {}
    scores, tasks = trial.scores[kept], trial.tasks[kept]
    against = reference(scores, tasks)
    rows = f"first {np.unique(tasks, return_counts=True)[1].max()} rows"
    answered = np.hstack([scores, right[kept, None].astype(np.float64)])
    last = np.full(len(kept), scores.shape[1], dtype=np.intp)
    found = {f"Arrow (PEFT), {rows}": task_scores(answered, last, against)}
    for name in ("traitroute", SINGLE):
        if name in trial.choices:
            found[f"({name}, {rows})"] = task_scores(scores, trial.choices[name][kept], against)
    return found


def figures(table: OutcomeTable, trial: Trial, score: str = "strict") -> dict[str, dict[str, Any]]:
    """The JSON of one protocol."""
    found = {name: trial.found(choice) for name, choice in trial.choices.items()}
    result = {}
    for name, scored in {**found, **oracles(trial), **mixed(table, trial, score)}.items():
        result[name] = summary(scored)
        if name in trial.choices:
            result[name]["base_share"] = float((trial.choices[name] == 0).mean())
            result[name]["fit_seconds"] = round(trial.seconds[name], 2)
        if SINGLE in found and name != SINGLE and scored.names == found[SINGLE].names:
            result[name]["p_vs_best_single"] = paired_p(scored.achieved, found[SINGLE].achieved)
    return result
