"""Gains forecast before training: of a profile's own sources, one left out at a time, and of a new data set.

A left-out source's row of gains enters nothing of its own forecast: neither the mean row, nor scaling, penalty or
intervals (see forecaster.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...adapters import InputError
from ..study import Study
from ..tasks.inference import infer_task
from ..tasks.scoring import Scores
from ..tasks.task import Task
from .forecaster import (
    ALL,
    LEVEL,
    MEAN_ROW,
    METHODS,
    Cells,
    Comparison,
    ForecastRow,
    MethodScore,
    cells_of,
    compare,
    coverage,
    fit_forecaster,
    leave_one_out,
    method_inputs,
)
from .signals import LENGTHS, PairFeatures, SignalReader, Signals, pair_features

Array = NDArray[np.float64]

MIN_SOURCES = 4
"""One left out, three to fit on."""


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of each left-out source by `method`, and the comparison of all methods.

    `measured`, `predicted`, `low` and `high` are gains (sources, tasks), NaN where not measured.
    Intervals are meant to hold `level` of the gains; `coverage` is the share that they did hold.
    `overall` is over all cells, `transfer` without those of a source on its own task, fitted without
    them too. `own` (sources, tasks) marks these.
    """

    method: str
    sources: tuple[str, ...]
    tasks: tuple[str, ...]
    measured: Array
    predicted: Array
    low: Array
    high: Array
    own: NDArray[np.bool_]
    level: float
    coverage: float
    overall: Comparison
    transfer: Comparison

    @property
    def methods(self) -> tuple[MethodScore, ...]:
        """The methods' scores over all cells."""
        return self.overall.methods


@dataclass(frozen=True)
class StudySignals:
    """Signals of a study: of each source's training rows, and of each task's test rows."""

    sources: Mapping[str, Signals]
    targets: Mapping[str, Signals]


def read_signals(
    study: Study, reader: SignalReader, *, on_dataset: Callable[[str], None] = lambda name: None
) -> StudySignals:
    """Read the signals of every source and target; `on_dataset` is called after each.

    Raises:
        SuiteError: a task's data is not where it was.
    """

    def read(name: str, *, training: bool) -> Signals:
        task = study.tasks[name]
        rows = study.training_set(name).examples if training else task.test_examples
        signals = reader.read(rows, labels=task.labels, metric=task.metric.name)
        on_dataset(name)
        return signals

    return StudySignals(
        sources={name: read(name, training=True) for name in study.sources},
        targets={name: read(name, training=False) for name in study.tasks},
    )


def forecast_study(
    study: Study, signals: StudySignals, *, method: str = ALL, score: Scores | None = None, seed: int = 0
) -> Forecasts:
    """Forecast every source of a study from the others, by every method.

    Raises:
        InputError: fewer than four sources, or no such method.
    """
    matrix = study.matrix(score=score, adapters=study.sources)
    targets = {name: signals.targets[name] for name in matrix.tasks}
    sources = {name: signals.sources[name] for name in matrix.adapters}
    features = pair_features(sources, targets, matrix.base)
    return compare_methods(matrix.gains, features, method=method, seed=seed)


def compare_methods(gains: Array, features: PairFeatures, *, method: str = ALL, seed: int = 0) -> Forecasts:
    """Forecast each row of `gains` (sources, tasks), NaN where not measured, from the other rows.

    Raises:
        InputError: fewer than four sources, or no such method.
    """
    check_forecastable(features.sources, method)
    own = np.array([[s == t for t in features.tasks] for s in features.sources])
    rows = leave_one_out(gains, features, method)
    return Forecasts(
        method=method,
        sources=features.sources,
        tasks=features.tasks,
        measured=gains,
        predicted=rows.gains,
        low=rows.low,
        high=rows.high,
        own=own,
        level=LEVEL,
        coverage=coverage(gains, rows),
        overall=compare("all", gains, features, own, seed),
        transfer=compare("cross-task", gains, features, own, seed),
    )


def check_forecastable(sources: Sequence[str], method: str) -> None:
    """Check, before anything long is computed, that there are enough sources and that the method exists.

    Raises:
        InputError: fewer than four sources, or no such method.
    """
    if len(sources) < MIN_SOURCES:
        raise InputError(
            f"{len(sources)} measured sources ({', '.join(sources)}); wanted at least {MIN_SOURCES}, one "
            "to leave out and three to forecast it from: profile a suite with more sources"
        )
    if method not in METHODS:
        raise InputError(f"no forecasting method {method!r}; methods: {', '.join(METHODS)}")


@dataclass(frozen=True)
class Prediction:
    """Forecast gains of an adapter that would be trained on `name`; arrays are (tasks,).

    `trusted` and `baseline` are the scores of `method` and of the mean row on the study's own sources,
    over the same `cells`; `coverage` is the share of their gains that intervals for `level` held.
    """

    name: str
    method: str
    cells: Cells
    sources: tuple[str, ...]
    tasks: tuple[str, ...]
    base: Array
    row: ForecastRow
    mean_row: Array
    level: float
    coverage: float
    trusted: MethodScore
    baseline: MethodScore

    @property
    def beats_mean_row(self) -> bool:
        """Whether the method's error is shown to be the smaller one, paired by source at 5%."""
        gain = self.trusted.mae_gain
        return gain.high < 0 and gain.p <= 0.05


def predict(
    study: Study,
    task: Task,
    reader: SignalReader,
    *,
    method: str = ALL,
    score: Scores | None = None,
    seed: int = 0,
    on_dataset: Callable[[str], None] = lambda name: None,
) -> Prediction:
    """Forecast the gains of an adapter that would be trained on `task`.

    Where the study profiled a task of this name, gains of sources on their own tasks are fitted on too,
    and a source of this name is left out; else cross-task gains alone. `on_dataset` is called after the
    signals of each dataset.

    Raises:
        InputError: fewer than four sources besides it, or no such method.
    """
    matrix = study.matrix(score=score, adapters=study.sources)
    rest = [name for name in matrix.adapters if name != task.name]
    check_forecastable(rest, method)
    new = reader.read(task.training_examples, labels=task.labels, metric=task.metric.name)
    on_dataset(task.name)
    signals = read_signals(study, reader, on_dataset=on_dataset)
    features = pair_features({name: signals.sources[name] for name in rest}, signals.targets, matrix.base)
    known = matrix.gains[[matrix.adapters.index(name) for name in rest]]
    judged = compare_methods(known, features, method=method, seed=seed)
    cells: Cells = "all" if task.name in matrix.tasks else "cross-task"
    gains = cells_of(cells, known, judged.own)
    inputs, with_mean = method_inputs(features, method)
    fitted = fit_forecaster(gains, inputs, with_mean=with_mean)
    own = method_inputs(pair_features({task.name: new}, signals.targets, matrix.base), method)[0]
    comparison = judged.overall if cells == "all" else judged.transfer
    return Prediction(
        name=task.name,
        method=method,
        cells=cells,
        sources=tuple(rest),
        tasks=matrix.tasks,
        base=matrix.base,
        row=fitted.predict(own[0]),
        mean_row=fitted.mean_row,
        level=LEVEL,
        coverage=coverage(gains, leave_one_out(gains, features, method)),
        trusted=comparison.method(method),
        baseline=comparison.method(MEAN_ROW),
    )


def source_task(data: Path, *, name: str | None = None, prompt: str | None = None) -> Task:
    """The task of a folder with train.jsonl, or of the folder `name` in `data`; inferred from its rows.

    Only training rows are read: a data set to train on need not have a test split.

    Raises:
        InputError: there is no such folder, or its rows are not as they should be.
    """
    folder = _task_folder(data, name)
    task = infer_task(folder.parent, folder.name, source=True, train=LENGTHS, test=1, prompt=prompt, splits=("train",))
    # Rendered now, so that a wrong template or label stops before anything long is read.
    _ = task.training_examples
    return task


def _task_folder(data: Path, name: str | None) -> Path:
    if not data.is_dir():
        raise InputError(f"{data} is not a folder: give one that holds train.jsonl")
    if name is not None:
        return data.resolve() / name
    if not any((data / f"train.{kind}").is_file() for kind in ("jsonl", "parquet")):
        tasks = sorted(p.parent.name for p in data.glob("*/train.*"))
        cure = f"add --name with one of {', '.join(tasks)}" if tasks else "give another folder"
        raise InputError(f"{data} holds neither train.jsonl nor train.parquet: {cure}")
    return data.resolve()
