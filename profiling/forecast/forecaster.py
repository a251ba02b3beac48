"""A row of gains predicted from features of the source and each target: the mean row, and deviations from it.

What is predicted is how far a source's gain on a target lies from the mean gain of the *other* sources there: a
ridge over all pairs, standardised. Its penalty is chosen by leaving one source out at a time, and so is the
width of the intervals: the conformal quantile of those errors. A large penalty gives back the mean row.

Everything is learnt from the sources given. To judge a forecast of a source, fit on the others alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ...adapters import InputError

Array = NDArray[np.float64]

LEVEL = 0.9
"""Wanted share of gains inside their intervals."""
PENALTIES = np.logspace(0, 6, 13)
MIN_SOURCES = 3
"""Two are needed to predict a left-out third."""


@dataclass(frozen=True)
class ForecastRow:
    """Predicted gains (tasks,) with their interval; NaN where no source was measured on the task."""

    gains: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Forecaster:
    """Fitted deviations from `mean_row` (tasks,); `width` is half an interval's, in units of gain.

    `penalty` is infinite where the forecast is the mean row. `with_mean` says whether the mean row is a feature too, which lets a noisy one be shrunk.
    """

    mean_row: Array
    penalty: float
    width: float
    with_mean: bool
    _ridge: Pipeline | None

    def predict(self, features: Array) -> ForecastRow:
        """Forecast a source from its `features` (tasks, f)."""
        gains = _predict(self._ridge, self.mean_row, features, with_mean=self.with_mean)[:, 0]
        return ForecastRow(gains, gains - self.width, gains + self.width)


def fit_forecaster(gains: Array, features: Array, *, with_mean: bool = False, level: float = LEVEL) -> Forecaster:
    """Fit to `gains` (sources, tasks), NaN where not measured, and `features` (sources, tasks, f).

    No features and no mean as a feature: the forecast is the mean row.

    Raises:
        InputError: fewer than three sources.
    """
    if len(gains) < MIN_SOURCES:
        raise InputError(
            f"{len(gains)} measured sources; wanted at least {MIN_SOURCES} to fit a forecast: profile more source tasks"
        )
    errors = np.stack(
        [
            _left_out(gains, features, left_out, with_mean=with_mean) - gains[left_out, :, None]
            for left_out in range(len(gains))
        ]
    )
    best = int(np.argmin(np.nanmean(errors**2, axis=(0, 1))))
    chosen = PENALTIES[best : best + 1]
    ridge = _ridge(gains, features, chosen, with_mean=with_mean)
    return Forecaster(
        mean_row=column_means(gains),
        penalty=float(chosen[0]) if ridge is not None else np.inf,
        width=_conformal(errors[:, :, best], level),
        with_mean=with_mean,
        _ridge=ridge,
    )


def column_means(gains: Array) -> Array:
    """Mean of each column's measured cells, NaN where there are none."""
    count = np.isfinite(gains).sum(axis=0)
    total = np.nansum(gains, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _left_out(gains: Array, features: Array, source: int, *, with_mean: bool) -> Array:
    """Forecast of one source by all the others (tasks, penalties)."""
    rest = np.arange(len(gains)) != source
    ridge = _ridge(gains[rest], features[rest], PENALTIES, with_mean=with_mean)
    return _predict(ridge, column_means(gains[rest]), features[source], with_mean=with_mean)


def _ridge(gains: Array, features: Array, penalties: Array, *, with_mean: bool) -> Pipeline | None:
    """Ridges of every penalty at once, one output each; None where there is nothing to learn from."""
    others = _means_of_others(gains)
    inputs = _with_mean(features, others) if with_mean else features
    measured = np.isfinite(gains) & np.isfinite(others)
    if not inputs.shape[-1] or not measured.any():
        return None
    outputs = np.repeat((gains - others)[measured][:, None], len(penalties), axis=1)
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=penalties, solver="svd"))
    return ridge.fit(inputs[measured], outputs)


def _predict(ridge: Pipeline | None, mean_row: Array, features: Array, *, with_mean: bool) -> Array:
    """Gains (tasks, penalties); one column of the mean row where there is no ridge."""
    if ridge is None:
        return np.repeat(mean_row[:, None], len(PENALTIES), axis=1)
    known = np.isfinite(mean_row)
    inputs = _with_mean(features, mean_row) if with_mean else features
    deviations = np.asarray(ridge.predict(inputs[known])).reshape(known.sum(), -1)
    gains = np.full((len(mean_row), deviations.shape[1]), np.nan)
    gains[known] = mean_row[known, None] + deviations
    return gains


def _with_mean(features: Array, means: Array) -> Array:
    return np.concatenate([features, means[..., None]], axis=-1)


def _means_of_others(gains: Array) -> Array:
    """Mean gain of the other sources in each cell; NaN where there is no other."""
    measured = np.isfinite(gains)
    count = measured.sum(axis=0) - measured
    total = np.nansum(gains, axis=0) - np.nan_to_num(gains)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _conformal(errors: Array, level: float) -> float:
    """The quantile of absolute errors that holds `level` of as many more, were all exchangeable."""
    sizes = np.sort(np.abs(errors[np.isfinite(errors)]))
    rank = int(np.ceil(level * (len(sizes) + 1)))
    return float(sizes[min(rank, len(sizes)) - 1])
