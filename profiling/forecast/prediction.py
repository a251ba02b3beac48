"""A forecast for a dataset that no adapter was trained on yet: `traitroute predict`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ...adapters import InputError, SuiteError
from ..study import Study
from ..tasks.scoring import Score
from ..tasks.sources import FolderSource
from ..tasks.suite import inferred_labels, inferred_metric
from ..tasks.task import LISTED_LABELS, Task
from .comparison import (
    ALL,
    MEAN_ROW,
    Cells,
    MethodScore,
    cells_of,
    coverage,
    leave_one_out,
    method_inputs,
)
from .forecast import check, compare_methods, read_signals
from .forecaster import LEVEL, ForecastRow, fit_forecaster
from .pair_features import pair_features
from .signals import LENGTHS, SignalReader

Array = NDArray[np.float64]


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
    score: Score = "strict",
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
    matrix = study.matrix(score=score)
    rest = [name for name in matrix.adapters if name != task.name]
    check(rest, method)
    new = reader.read(task.training_examples, labels=task.labels, metric=task.metric)
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

    Labels, prompt and metric follow the rules of `infer_task`, from training rows alone: a dataset to
    train on need not have a test split.

    Raises:
        InputError: there is no such folder, or its rows are not as they should be.
    """
    folder = _task_folder(data, name)
    rows = FolderSource(folder=folder.parent)
    seen = rows.load(folder.name, "train", 10**6, seed=0)
    labels = inferred_labels(seen, folder)
    listed = 0 < len(labels) <= LISTED_LABELS
    ask = f"\nAnswer with one of: {', '.join(labels)}." if listed else ""
    try:
        task = Task(
            name=folder.name,
            rows=rows,
            prompt="{{ input }}" + ask if prompt is None else prompt,
            labels=labels,
            metric=inferred_metric(seen, labels),
            source=True,
            train=LENGTHS,
        )
    except ValidationError as exc:
        reasons = "; ".join(e["msg"].removeprefix("Value error, ") for e in exc.errors())
        raise SuiteError(f"{folder}: {reasons}") from exc
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
