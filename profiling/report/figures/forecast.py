"""Forecast gains against those measured, and how methods of forecasting compare."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from .style import BLUE, GREY, intervals, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


class MethodScore(Protocol):
    """How well a method forecasts: rank correlation with 95% bounds, and mean absolute error in points."""

    @property
    def name(self) -> str: ...
    @property
    def rho(self) -> float: ...
    @property
    def rho_low(self) -> float: ...
    @property
    def rho_high(self) -> float: ...
    @property
    def mae(self) -> float: ...


class Forecasts(Protocol):
    """Gains that were measured, and forecast without their source's row: (sources, tasks), shares or nats.

    `low` and `high` are meant to hold a share `level` of them; `paper_claim` is a sentence on arXiv 2509.13624.
    """

    @property
    def measured(self) -> Array: ...
    @property
    def predicted(self) -> Array: ...
    @property
    def low(self) -> Array: ...
    @property
    def high(self) -> Array: ...
    @property
    def level(self) -> float: ...
    @property
    def methods(self) -> Sequence[MethodScore]: ...
    @property
    def paper_claim(self) -> str: ...


def forecast(found: Forecasts) -> "Figure":
    """Left, every cell forecast against measured with its interval; right, the methods' rank correlations."""
    figure = new_figure(4.4)
    axes = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _scatter(axes[0], found)
    at = np.arange(len(found.methods))[::-1]
    rho, low, high = (np.array([getattr(m, k) for m in found.methods]) for k in ("rho", "rho_low", "rho_high"))
    axes[1].axvline(0, color=GREY, linewidth=0.8)
    intervals(axes[1], at, rho, low, high, colour=BLUE)
    axes[1].set_yticks(at, [m.name for m in found.methods])
    axes[1].set(xlabel="rank correlation with the measured gains", xlim=(-1.02, 1.02))
    axes[1].set_ylim(-0.6, len(found.methods) - 0.4)
    axes[1].grid(axis="y", color="#EEEEEE")
    return figure


def _scatter(axes, found: Forecasts) -> None:
    known = np.isfinite(found.measured) & np.isfinite(found.predicted)
    x, y, low, high = (100 * a[known] for a in (found.measured, found.predicted, found.low, found.high))
    spread = np.clip([y - low, high - y], 0, None)
    axes.errorbar(x, y, yerr=spread, fmt="o", color=BLUE, ecolor="#B9CFDD", elinewidth=0.8, markersize=3.5)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    axes.plot(ends, ends, "--", color=GREY, linewidth=0.9)
    axes.set(xlabel="measured gain, points", ylabel="forecast gain, points")
