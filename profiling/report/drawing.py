"""How figures look: sizes, colours that colour-blind readers can tell apart.

Colours are those of Okabe and Ito; gains run from orange over white to blue, and what is significant is
marked in the cell as well, so that nothing rests on colour alone.
"""

from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

BLUE, ORANGE, GREEN, PURPLE, GREY, INK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#8F4F86",
    "#8A8A8A",
    "#1B1B1B",
)
SERIES = (BLUE, ORANGE, GREEN, PURPLE, "#B58900", "#56B4E9", "#444444", "#CC79A7")
WIDTH = 10.0
"""Inches; a page shows them at about 100 pixels each."""

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    # The same registry must give the same bytes.
    "svg.hashsalt": "traitroute",
}


def figure_style() -> AbstractContextManager[Any]:
    """Within it figures are drawn and saved in the report's style; what was set before comes back.

    Raises:
        ImportError: the `report` extra is missing.
    """
    if find_spec("matplotlib") is None:
        raise ImportError('figures need matplotlib: pip install "traitroute[report]"', name="matplotlib")
    import matplotlib

    return matplotlib.rc_context(_SETTINGS)


def new_figure(height: float, *, width: float = WIDTH) -> "Figure":
    """An empty figure, in inches; its parts make room for one another."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def panels(count: int, *, columns: tuple[int, ...], height: float, **options: Any) -> "tuple[Figure, list[Axes]]":
    """A figure with `count` panels, each `height` inches high, in as many `columns` as leave least room."""
    across = min(count, min(columns, key=lambda n: -count % n))
    rows = -(-count // across)
    figure = new_figure(rows * height + 0.3)
    axes = figure.subplots(rows, across, squeeze=False, **options).ravel()
    for spare in axes[count:]:
        spare.set_visible(False)
    # With shared axes only the last row is labelled, and it need not be full.
    for lowest in axes[max(0, count - across) : count]:
        lowest.tick_params(labelbottom=True)
    return figure, list(axes[:count])


def gain_colours() -> "Colormap":
    """Orange for losses, white for nothing, blue for gains; light grey where nothing was measured."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#A63C00", "#F3A36B", "#FAFAFA", "#74B3DB", "#00558C"]
    return LinearSegmentedColormap.from_list("gains", stops).with_extremes(bad="#DDDDDD")


def share_colours() -> "Colormap":
    """White to dark blue."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#FAFAFA", "#9CC9E6", "#00558C"]
    return LinearSegmentedColormap.from_list("shares", stops).with_extremes(bad="#DDDDDD")


def colour_bar(figure: "Figure", image: Any, axes: Any, label: str) -> None:
    """A slim scale beside `axes`."""
    bar = figure.colorbar(image, ax=axes, label=label, shrink=0.7, aspect=25, pad=0.015)
    bar.outline.set_visible(False)


def intervals(
    axes: "Axes",
    at: ArrayLike,
    values: Array,
    low: Array,
    high: Array,
    *,
    colour: str,
    label: str | None = None,
    marker: str = "o",
    open_marker: bool = False,
) -> None:
    """Points at height `at` with horizontal 95% bars."""
    # A percentile interval need not hold its own estimate; bars are never negative.
    spread = np.clip([np.asarray(values) - low, np.asarray(high) - values], 0, None)
    axes.errorbar(
        values,
        at,
        xerr=spread,
        fmt=marker,
        color=colour,
        markersize=4.5,
        markerfacecolor="white" if open_marker else colour,
        elinewidth=1.1,
        label=label,
    )


def signed_limit(values: Array, *, least: float = 0.05) -> float:
    """The largest absolute value, at least `least`: both ends of a diverging scale."""
    known = np.abs(values[np.isfinite(values)])
    return max(least, float(known.max()) if known.size else least)


def short_name(name: str, most: int = 26) -> str:
    """`name`, cut in its middle where it is longer than `most` characters."""
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}…{name[-(most - 1 - head) :]}"
