"""Fit and ask every router in every fold of a protocol, in as many processes as there are cores, and score them."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .baselines import BASELINES, STACK
from .ours import ABLATIONS, OURS, SEEDS
from .protocols import Fold, folds, to_design_on
from .scores import DataSetScores, Reference, ahead_p, data_set_scores, leads, reference, summary
from .seen import Router, known_scores, see
from .table import OutcomeTable, load

Array = NDArray[np.float64]
Choice = NDArray[np.intp]
ROUTERS: dict[str, Router] = {**OURS, **BASELINES, **ABLATIONS, **SEEDS}
SCORES = ("strict", "lenient", "metric")
ARROW_SCORES = SCORES[:2]
OUR_NAME = "traitroute"
MEAN = "(mean of the protocols)"


@dataclass(frozen=True)
class Job:
    """One fold of a protocol over the table in `file`, and the routers to ask there, for each of `scores`.

    Where given, only the rows `fit` are fitted on, and only `adapters` are there to choose from.
    """

    file: Path
    protocol: str
    fold: int
    routers: tuple[str, ...]
    scores: tuple[str, ...] = SCORES
    fit: tuple[int, ...] | None = None
    adapters: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Answers:
    """By score, the columns that each router chose for the rows of a fold; and the processor seconds each took."""

    choices: dict[str, dict[str, Choice]]
    seconds: dict[str, float]


def answer(job: Job) -> Answers:
    """Fit the routers of a job in their order, and ask them."""
    table, found = complete_table(job.file), _folds_of(job.file, job.protocol)
    if job.adapters is not None:
        table = table.of_adapters(np.array(job.adapters))
        found = fold_list(table, job.protocol)
    fold = found[job.fold]
    if job.fit is not None:
        fold = replace(fold, fit=np.array(job.fit))
    return answers(table, fold, {name: ROUTERS[name] for name in job.routers}, job.scores)


def answers(table: OutcomeTable, fold: Fold, routers: Mapping[str, Router], scores: Sequence[str]) -> Answers:
    """Fit and ask routers in one fold; what does not depend on scores is computed once for all of these."""
    first, asked = see(table, scores_of(table, scores[0]), fold)
    choices: dict[str, dict[str, Choice]] = {score: {} for score in scores}
    seconds = dict.fromkeys(routers, 0.0)
    for score in scores:
        seen = replace(first, scores=known_scores(table, scores_of(table, score), fold), memo={})
        for name, router in routers.items():
            start = time.process_time()
            choices[score][name] = router.fit(seen).choose(asked)
            seconds[name] += time.process_time() - start
        # What is fitted refers back to what was seen; waiting for the garbage collector took gigabytes.
        seen.memo.clear()
    first.requests.memo.clear()
    return Answers(choices, seconds)


@cache
def complete_table(file: Path) -> OutcomeTable:
    """The requests and adapters of which all is measured, or the program's end with what to run."""
    table = load(file).complete()
    if not len(table) or not table.adapters or any(np.isnan(getattr(table, score)).any() for score in SCORES):
        raise SystemExit(f"{file}: no request was measured with base and an adapter; run benchmarks/outcomes.py on")
    return table


@cache
def design_table(file: Path) -> OutcomeTable:
    """The same of the groups to design on."""
    return to_design_on(complete_table(file))


@cache
def _folds_of(file: Path, protocol: str) -> list[Fold]:
    return fold_list(complete_table(file), protocol)


def scores_of(table: OutcomeTable, score: str) -> Array:
    """One of the table's scores, (n, 1 + a)."""
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
        try:
            return [future.result() for future in waiting]
        except BrokenProcessPool as exc:
            raise SystemExit("a process was killed, as happens where memory is short: try --processes 1") from exc


@dataclass(frozen=True, eq=False)
class Trial:
    """One protocol and score: the rows scored, in the order of its folds, and what each router chose there."""

    table: OutcomeTable
    score: str
    rows: Choice
    scores: Array
    against: Reference
    choices: dict[str, Choice]
    seconds: dict[str, float]

    @classmethod
    def of(cls, table: OutcomeTable, score: str, parts: Sequence[Fold], answered: Sequence[Answers]) -> "Trial":
        """Put together what was answered in the folds `parts`."""
        rows = np.concatenate([fold.test for fold in parts])
        scores = scores_of(table, score)[rows]
        names = list(answered[0].seconds)
        return cls(
            table,
            score,
            rows,
            scores,
            against(table, scores, rows),
            choices={n: np.concatenate([a.choices[score][n] for a in answered]) for n in names},
            seconds={n: sum(a.seconds[n] for a in answered) for n in names},
        )

    def found(self, choice: Choice) -> DataSetScores:
        """What a choice of columns scores."""
        return data_set_scores(self.scores, choice, self.against)


def against(table: OutcomeTable, scores: Array, rows: Choice) -> Reference:
    """What choices for the table's `rows`, of `scores`, are held against."""
    return reference(scores, table.dataset[rows], table.group[rows], table.row[rows], rows)


def run(table: OutcomeTable, score: str, protocol: str, routers: Mapping[str, Router]) -> Trial:
    """Fit and ask every router in every fold of `protocol`, in this process."""
    parts = fold_list(table, protocol)
    return Trial.of(table, score, parts, [answers(table, fold, routers, [score]) for fold in parts])


def hindsight(trial: Trial) -> dict[str, Choice]:
    """What no router can be: the best column of all requests, of each data set, and of each request."""
    of_data_set = np.zeros(len(trial.scores), dtype=np.intp)
    means = np.array([trial.scores[m].mean(axis=0) for m in trial.against.members])
    for members, mean in zip(trial.against.members, means, strict=True):
        of_data_set[members] = mean.argmax()
    return {
        "(best single adapter in hindsight)": np.full(len(trial.scores), means.mean(axis=0).argmax(), dtype=np.intp),
        "(oracle per data set)": of_data_set,
        "(oracle per request)": trial.scores.argmax(axis=1),
    }


def arrow_figures(trial: Trial) -> dict[str, dict[str, Any]]:
    """PEFT's Arrow, which answers by a mixture and not by a choice, and choosers on the requests it was measured on."""
    if trial.score not in ARROW_SCORES:
        return {}
    right = trial.table.arrow[trial.rows, ARROW_SCORES.index(trial.score)].astype(np.float64)
    kept = np.flatnonzero(right >= 0)
    if not len(kept):
        return {}
    scores = trial.scores[kept]
    reference = against(trial.table, scores, trial.rows[kept])
    answered, last = np.hstack([scores, right[kept, None]]), np.full(len(kept), scores.shape[1])
    found = {f"Arrow (PEFT), {len(kept)} requests": data_set_scores(answered, last, reference)}
    for name in (OUR_NAME, STACK):
        if name in trial.choices:
            chosen = trial.choices[name][kept]
            found[f"({name}, {len(kept)} requests)"] = data_set_scores(scores, chosen, reference)
    return {name: summary(scored) for name, scored in found.items()}


@dataclass(frozen=True, eq=False)
class Found:
    """One protocol and score: what each router achieved, and its figures as in the JSON."""

    achieved: dict[str, DataSetScores]
    figures: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, trial: Trial) -> "Found":
        """Score every router, and what is only known in hindsight."""
        achieved = {name: trial.found(choice) for name, choice in trial.choices.items()}
        figures = {name: summary(scored) for name, scored in achieved.items()}
        for name, choice in trial.choices.items():
            figures[name]["base_share"] = float((choice == 0).mean())
            figures[name]["seconds"] = round(trial.seconds[name], 2)
            if OUR_NAME in achieved and name != OUR_NAME:
                figures[name]["p_traitroute_ahead"] = ahead_p([leads(achieved[OUR_NAME], achieved[name])])
        if baselines := [name for name in achieved if name in BASELINES]:
            best = max(baselines, key=lambda name: figures[name]["pct_of_best"])
            figures["(best baseline in hindsight)"] = {"name": best, **figures[best]}
        figures |= {name: summary(trial.found(choice)) for name, choice in hindsight(trial).items()}
        figures |= arrow_figures(trial)
        return cls(achieved, figures)


def over_protocols(found: Sequence[Found]) -> dict[str, dict[str, Any]]:
    """Of one score, the mean over protocols of each router, and whether ours is ahead of it there."""
    names = [name for name in found[0].figures if all(name in f.figures for f in found)]
    means: dict[str, dict[str, Any]] = {}
    for name in names:
        of = [f.figures[name] for f in found]
        means[name] = {key: float(np.mean([f[key] for f in of])) for key in ("pct_of_best", "gain_recovered")}
        means[name]["groups_below_base"] = sum(f["groups_below_base"] for f in of)
        if name in found[0].achieved:
            means[name]["base_share"] = float(np.mean([f["base_share"] for f in of]))
            if name != OUR_NAME and OUR_NAME in found[0].achieved:
                ahead = [leads(f.achieved[OUR_NAME], f.achieved[name]) for f in found]
                means[name]["p_traitroute_ahead"] = ahead_p(ahead)
    return means
