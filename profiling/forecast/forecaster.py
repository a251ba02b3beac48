"""A row of gains forecast from features of the source and each target, and how well each method forecasts.

What is forecast is how far a source's gain on a target lies from the mean gain of the *other* sources there: a ridge
over all pairs, standardised. Its penalty is chosen by leaving one source out at a time, and so is the width of the
intervals: the conformal quantile of those errors. A large penalty gives back the mean row. Everything is learnt from
the sources given; to judge a forecast of a source, fit on the others alone.

Methods differ in the features they see and in nothing else; "mean row" sees none and is what the others must beat. They
are judged with and without the cells of a source on its own task, which any similarity finds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ...adapters import InputError
from ..statistics.significance import Interval, paired_bootstrap
from .signals import GRADIENT, HIDDEN, MEANING, NAMES, PERPLEXITY, STYLE, PairFeatures

Array = NDArray[np.float64]

LEVEL = 0.9
"""Wanted share of gains inside their intervals."""
PENALTIES = np.logspace(0, 6, 13)
MIN_SOURCES = 3
"""Two are needed to predict a left-out third."""


Cells = Literal["all", "cross-task"]

MEAN_ROW, SEMANTIC, HIDDEN_STATISTICS, ALL = ("mean row", "semantic similarity", "hidden statistics", "all")
METHODS: Mapping[str, tuple[str, ...]] = {
    MEAN_ROW: (),
    SEMANTIC: (MEANING,),
    "perplexity": PERPLEXITY,
    HIDDEN_STATISTICS: HIDDEN,
    "style": (STYLE,),
    "gradient": (GRADIENT,),
    ALL: NAMES,
}
"""Features of each method; "all" sees the mean gain of the other sources as well."""


@dataclass(frozen=True)
class ForecastRow:
    """Predicted gains (tasks,) with their interval; NaN where no source was measured on the task."""

    gains: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Forecaster:
    """Fitted deviations from `mean_row` (tasks,); `width` is half an interval's, in units of gain.

    `penalty` is infinite where the forecast is the mean row. `with_mean` says whether the mean row is a feature too,
    which lets a noisy one be shrunk.
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


@dataclass(frozen=True)
class MethodScore:
    """How a method forecasts left-out sources: means over sources with 95% bootstrap bounds over sources.

    `rho` is Spearman's correlation over tasks, `mae` the mean absolute error in points (hundredths of
    a score). `rhos` and `maes` (sources,) are those of each source; rho is NaN where a source gains the
    same everywhere, and 0 where a method predicts the same everywhere. `rho_gain` and `mae_gain` are
    this method's less the mean row's, paired by source; a better method has a positive `rho_gain` and a
    negative `mae_gain`.
    """

    name: str
    rho: float
    rho_low: float
    rho_high: float
    mae: float
    mae_low: float
    mae_high: float
    rho_gain: Interval
    mae_gain: Interval
    rhos: Array
    maes: Array


@dataclass(frozen=True)
class Comparison:
    """The scores of all methods on the same cells."""

    cells: Cells
    methods: tuple[MethodScore, ...]

    def method(self, name: str) -> MethodScore:
        """The score of the method called `name`."""
        return next(m for m in self.methods if m.name == name)


def leave_one_out(gains: Array, features: PairFeatures, method: str) -> ForecastRow:
    """Every source forecast by a fit to the others, each array (sources, tasks)."""
    inputs, with_mean = method_inputs(features, method)
    rows = []
    for source in range(len(gains)):
        rest = np.arange(len(gains)) != source
        fitted = fit_forecaster(gains[rest], inputs[rest], with_mean=with_mean)
        rows.append(fitted.predict(inputs[source]))
    return ForecastRow(*(np.stack([getattr(r, n) for r in rows]) for n in ("gains", "low", "high")))


def method_inputs(features: PairFeatures, method: str) -> tuple[Array, bool]:
    """Features of a method, and whether it also sees the mean gain of the others."""
    return features.part(METHODS[method]), method == ALL


def cells_of(cells: Cells, gains: Array, own: NDArray[np.bool_]) -> Array:
    """Gains (sources, tasks) with the other cells made NaN; `own` marks those of sources on their own task."""
    return gains if cells == "all" else np.where(own, np.nan, gains)


def coverage(gains: Array, rows: ForecastRow) -> float:
    """Share of measured gains inside their intervals."""
    measured = np.isfinite(gains) & np.isfinite(rows.gains)
    inside = (rows.low <= gains) & (gains <= rows.high)
    return float(inside[measured].mean())


def compare(cells: Cells, gains: Array, features: PairFeatures, own: NDArray[np.bool_], seed: int) -> Comparison:
    """Forecast each source from the others by every method, fitted to and judged on `cells` alone."""
    kept = cells_of(cells, gains, own)
    figures = {name: _row_figures(kept, leave_one_out(kept, features, name).gains) for name in METHODS}
    return Comparison(cells, tuple(_score(name, own, figures[MEAN_ROW], seed) for name, own in figures.items()))


def _row_figures(measured: Array, predicted: Array) -> Array:
    """Spearman's rho and the mean absolute error in points of every row: (2, sources)."""
    pairs = [
        (m[kept], p[kept])
        for m, p in zip(measured, predicted, strict=True)
        for kept in [np.isfinite(m) & np.isfinite(p)]
    ]
    return np.array([[_rho(m, p) for m, p in pairs], [100 * np.abs(m - p).mean() for m, p in pairs]])


def _rho(measured: Array, predicted: Array) -> float:
    if len(measured) < 2 or np.ptp(measured) == 0:
        return np.nan
    # Equal forecasts order nothing; rounding must not make an order of them.
    if np.ptp(predicted) < 1e-12:
        return 0.0
    return float(spearmanr(measured, predicted.round(12)).statistic)


def _score(name: str, own: Array, base: Array, seed: int) -> MethodScore:
    rho, mae = (mean_over_sources(values, seed) for values in own)
    rho_gain, mae_gain = (mean_over_sources(values, seed) for values in own - base)
    return MethodScore(name, rho.mean, rho.low, rho.high, mae.mean, mae.low, mae.high, rho_gain, mae_gain, *own)


def mean_over_sources(values: Array, seed: int) -> Interval:
    """Mean over sources; those without a value are left out, NaN where that is all of them."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Interval(np.nan, np.nan, np.nan, 1.0)
    return paired_bootstrap(known, seed=seed)
