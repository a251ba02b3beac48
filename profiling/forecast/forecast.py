"""Prediction before training: a source's gains from its data, judged by leaving out one source at a time.

A left-out source's row of gains enters nothing of its own forecast: neither the mean row, nor scaling, penalty
or intervals (see forecaster.py). `paper_claim` puts the claim of arXiv 2509.13624, that hidden statistics of
the data explain transfer better than its surface, to one test named in advance: rank correlation over the
cells of other tasks than the source's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...adapters import InputError
from ..statistics.significance import Interval
from ..study import Study
from ..tasks.scoring import Score
from .comparison import (
    ALL,
    HIDDEN_STATISTICS,
    MEAN_ROW,
    METHODS,
    SEMANTIC,
    Comparison,
    MethodScore,
    compare,
    coverage,
    leave_one_out,
)
from .forecaster import LEVEL
from .pair_features import PairFeatures, pair_features
from .signals import SignalReader, Signals

Array = NDArray[np.float64]
Verdict = Literal["shown", "not shown", "the opposite is shown"]

MIN_SOURCES = 4
"""One left out, three to fit on."""
TELLING_SOURCES = 6
"""With fewer, no sign-flip p can fall below 0.05."""
ALPHA = 0.05
_SAID: Mapping[Verdict, str] = {
    "shown": "this is shown",
    "not shown": "this is not shown",
    "the opposite is shown": "the opposite is shown",
}
_BESIDE: Mapping[Verdict, str] = {
    "shown": "beat",
    "not shown": "are not shown to beat",
    "the opposite is shown": "do worse than",
}


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

    @property
    def verdict(self) -> Verdict:
        """On hidden statistics against semantic similarity: by rank correlation, cross-task."""
        return _verdict(self.transfer.hidden_rho)

    @property
    def paper_claim(self) -> str:
        """The verdict in one sentence, with its figures."""
        hidden, semantic, mean = (self.transfer.method(name) for name in (HIDDEN_STATISTICS, SEMANTIC, MEAN_ROW))
        found, n = self.transfer.hidden_rho, int(np.isfinite(hidden.rhos).sum())
        error = self.transfer.hidden_mae
        few = f"; {n} sources are too few to show anything" if n < TELLING_SOURCES else ""
        beside = _BESIDE[_verdict(hidden.rho_gain)]
        return (
            "Claim: hidden statistics forecast cross-task gains better than semantic similarity. "
            f"In these data {_SAID[self.verdict]}: rank correlation {hidden.rho:.2f} against "
            f"{semantic.rho:.2f} over {n} left-out sources, difference {found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}], "
            f"p = {found.p:.2g}{few}; hidden statistics {beside} the mean row of the other sources "
            f"({mean.rho:.2f}). Beside it, not part of the test: their mean error is {hidden.mae:.1f} points "
            f"against {semantic.mae:.1f}, difference {error.mean:+.1f} [{error.low:+.1f}, {error.high:+.1f}], "
            f"p = {error.p:.2g}; the mean row's is {mean.mae:.1f}."
        )


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
        signals = reader.read(rows, labels=task.labels, metric=task.metric)
        on_dataset(name)
        return signals

    return StudySignals(
        sources={name: read(name, training=True) for name in study.adapters},
        targets={name: read(name, training=False) for name in study.tasks},
    )


def forecast_study(
    study: Study,
    signals: StudySignals,
    *,
    method: str = ALL,
    score: Score = "strict",
    seed: int = 0,
) -> Forecasts:
    """Forecast every source of a study from the others, by every method.

    Raises:
        InputError: fewer than four sources, or no such method.
    """
    matrix = study.matrix(score=score)
    targets = {name: signals.targets[name] for name in matrix.tasks}
    sources = {name: signals.sources[name] for name in matrix.adapters}
    features = pair_features(sources, targets, matrix.base)
    return compare_methods(matrix.gains, features, method=method, seed=seed)


def compare_methods(gains: Array, features: PairFeatures, *, method: str = ALL, seed: int = 0) -> Forecasts:
    """Forecast each row of `gains` (sources, tasks), NaN where not measured, from the other rows.

    Raises:
        InputError: fewer than four sources, or no such method.
    """
    check(features.sources, method)
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


def check(sources: Sequence[str], method: str) -> None:
    """Refuse what cannot be forecast, before anything long is computed.

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


def _verdict(gain: Interval) -> Verdict:
    """Of a paired gain in rank correlation: both its interval and its test must say so."""
    if gain.p > ALPHA or gain.low <= 0 <= gain.high:
        return "not shown"
    return "shown" if gain.mean > 0 else "the opposite is shown"
