"""How well gains are forecast from data: every method on left-out sources, with intervals over sources.

The methods differ in the features they see and in nothing else; "mean row" sees none and is what the others
must beat. With and without the cells of a source on its own task, which any similarity finds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ..statistics.significance import Interval, paired_bootstrap
from .forecaster import ForecastRow, fit_forecaster
from .pair_features import GRADIENT, HIDDEN, MEANING, NAMES, PERPLEXITY, STYLE, PairFeatures

Array = NDArray[np.float64]
Cells = Literal["all", "cross-task"]

MEAN_ROW, SEMANTIC, HIDDEN_STATISTICS, ALL = (
    "mean row",
    "semantic similarity",
    "hidden statistics",
    "all",
)
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
    """All methods on the same cells; `hidden_rho` and `hidden_mae` set hidden against semantic."""

    cells: Cells
    methods: tuple[MethodScore, ...]
    hidden_rho: Interval
    hidden_mae: Interval

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
    base, hidden, semantic = (figures[n] for n in (MEAN_ROW, HIDDEN_STATISTICS, SEMANTIC))
    return Comparison(
        cells=cells,
        methods=tuple(_score(name, found, base, seed) for name, found in figures.items()),
        hidden_rho=_mean(hidden[0] - semantic[0], seed),
        hidden_mae=_mean(hidden[1] - semantic[1], seed),
    )


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


def _score(name: str, found: Array, base: Array, seed: int) -> MethodScore:
    rho, mae = (_mean(values, seed) for values in found)
    rho_gain, mae_gain = (_mean(values, seed) for values in found - base)
    return MethodScore(name, rho.mean, rho.low, rho.high, mae.mean, mae.low, mae.high, rho_gain, mae_gain, *found)


def _mean(values: Array, seed: int) -> Interval:
    """Mean over sources; those without a value are left out, NaN where that is all of them."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Interval(np.nan, np.nan, np.nan, 1.0)
    return paired_bootstrap(known, seed=seed)
