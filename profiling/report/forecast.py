"""Gains forecast before training, against those measured, and how methods of forecasting compare."""

from typing import TYPE_CHECKING

import numpy as np

from ..forecast.forecast import Forecasts
from ..forecast.forecaster import MethodScore
from .drawing import BLUE, GREY, intervals, new_figure
from .section import Picture, Section, Table, between, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_forecast(forecasts: Forecasts) -> "Figure":
    """Left, every cell forecast against measured with its interval; right, the methods' rank correlations."""
    figure = new_figure(4.4)
    axes = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _scatter(axes[0], forecasts)
    at = np.arange(len(forecasts.methods))[::-1]
    rho, low, high = (np.array([getattr(m, k) for m in forecasts.methods]) for k in ("rho", "rho_low", "rho_high"))
    axes[1].axvline(0, color=GREY, linewidth=0.8)
    intervals(axes[1], at, rho, low, high, colour=BLUE)
    axes[1].set_yticks(at, [m.name for m in forecasts.methods])
    axes[1].set(xlabel="rank correlation with the measured gains", xlim=(-1.02, 1.02))
    axes[1].set_ylim(-0.6, len(forecasts.methods) - 0.4)
    axes[1].grid(axis="y", color="#EEEEEE")
    return figure


def _scatter(axes, forecasts: Forecasts) -> None:
    known = np.isfinite(forecasts.measured) & np.isfinite(forecasts.predicted)
    x, y, low, high = (100 * a[known] for a in (forecasts.measured, forecasts.predicted, forecasts.low, forecasts.high))
    spread = np.clip([y - low, high - y], 0, None)
    axes.errorbar(x, y, yerr=spread, fmt="o", color=BLUE, ecolor="#B9CFDD", elinewidth=0.8, markersize=3.5)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    axes.plot(ends, ends, "--", color=GREY, linewidth=0.9)
    axes.set(xlabel="measured gain, points", ylabel="forecast gain, points")


_INTRO = (
    "Each source's row of gains forecast from the other sources, without its own row: what could have been "
    "said before its adapter was trained."
)


def forecast_section(forecasts: Forecasts) -> Section:
    """Forecast against measured gains, and the methods side by side."""
    picture = Picture(
        "forecast",
        "Gains forecast before training",
        draw_forecast(forecasts),
        forecast_caption(forecasts),
        "Scatter plot of forecast against measured gains, and rank correlations of the methods with intervals.",
    )
    return Section("forecast", "Prediction before training", _INTRO, (picture,), (_methods(forecasts),))


def forecast_caption(forecasts: Forecasts) -> str:
    """How often intervals hold the truth, and whether the best method is shown to be better than the others."""
    known = np.isfinite(forecasts.measured) & np.isfinite(forecasts.predicted)
    inside = (forecasts.low <= forecasts.measured) & (forecasts.measured <= forecasts.high)
    held = float(inside[known].mean())
    best = max(forecasts.methods, key=lambda m: np.nan_to_num(m.rho, nan=-2))
    rivals = [m.name for m in forecasts.methods if m is not best and m.rho_high >= best.rho_low]
    compared = (
        f"its interval overlaps with that of {', '.join(rivals)}, so it is not shown to be better"
        if rivals
        else "no other method's interval reaches its own"
    )
    return (
        f"{percent(held)} of {int(known.sum())} measured gains lie within their forecast's interval, which is meant to "
        f"hold {percent(forecasts.level)}. Highest rank correlation: {best.name}, {_score(best)}; {compared}."
    )


def _score(method: MethodScore) -> str:
    interval = between(method.rho_low, method.rho_high, factor=1, form="+.2f")
    return f"{method.rho:+.2f} ({interval}), mean absolute error {method.mae:.1f} points"


def _methods(forecasts: Forecasts) -> Table:
    columns = ("name", "rho", "rho_low", "rho_high", "mae")
    rows = [{c: getattr(m, c) for c in columns} for m in forecasts.methods]
    return Table("forecast_methods", "Methods of forecasting", rows)
