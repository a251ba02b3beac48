"""The section of forecasts: gains predicted before training, where they were made."""

import numpy as np

from ..figures.forecast import Forecasts, MethodScore, forecast
from ..section import Picture, Section
from ..tables import Table
from ..wording import percent

_INTRO = (
    "Each source's row of gains forecast from the other sources, without its own row: what could have been "
    "said before its adapter was trained."
)


def forecast_section(found: Forecasts) -> Section:
    """Forecast against measured gains, and the methods side by side."""
    picture = Picture(
        "forecast",
        "Gains forecast before training",
        forecast(found),
        forecast_caption(found),
        "Scatter plot of forecast against measured gains, and rank correlations of the methods with intervals.",
    )
    return Section("forecast", "Prediction before training", _INTRO, (picture,), (_methods(found),))


def forecast_caption(found: Forecasts) -> str:
    """How often intervals hold the truth, and whether the best method can be told from the others."""
    known = np.isfinite(found.measured) & np.isfinite(found.predicted)
    inside = (found.low <= found.measured) & (found.measured <= found.high)
    held = float(inside[known].mean())
    best = max(found.methods, key=lambda m: np.nan_to_num(m.rho, nan=-2))
    rivals = [m.name for m in found.methods if m is not best and m.rho_high >= best.rho_low]
    compared = (
        f"its interval overlaps with that of {', '.join(rivals)}, so it is not shown to be better"
        if rivals
        else "no other method's interval reaches its own"
    )
    return (
        f"{percent(held)} of {int(known.sum())} measured gains lie within their forecast's interval, which is meant to hold {percent(found.level)}. Highest rank correlation: "
        f"{best.name}, {_score(best)}; {compared}. {found.paper_claim}"
    )


def _score(method: MethodScore) -> str:
    return f"{method.rho:+.2f} (95% interval {method.rho_low:+.2f} to {method.rho_high:+.2f}), mean absolute error {method.mae:.1f} points"


def _methods(found: Forecasts) -> Table:
    columns = ("name", "rho", "rho_low", "rho_high", "mae")
    rows = [{c: getattr(m, c) for c in columns} for m in found.methods]
    return Table("forecast_methods", "Methods of forecasting", rows)
