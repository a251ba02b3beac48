"""How figures look: sizes, colours that colour-blind readers can tell apart, and the heat map.

Colours are those of Okabe and Ito; gains run from orange over white to blue, and what is significant is
marked in the cell as well, so that nothing rests on colour alone.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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

_SETTINGS = {
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
        raise ImportError(
            'figures need matplotlib: pip install "traitroute[report]"', name="matplotlib"
        )
    import matplotlib

    return matplotlib.rc_context(_SETTINGS)


def new_figure(height: float, *, width: float = WIDTH) -> "Figure":
    """An empty figure, in inches; its parts make room for one another."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def panels(
    count: int, *, columns: int, height: float, **options: Any
) -> "tuple[Figure, list[Axes]]":
    """A figure with `count` panels in rows of `columns`, each `height` inches high."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(rows * height + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for spare in axes[count:]:
        spare.set_visible(False)
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


def heat_map(
    axes: "Axes",
    values: Array,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    diverging: bool = False,
    text: str | None = None,
    marked: NDArray[np.bool_] | None = None,
    hatched: NDArray[np.bool_] | None = None,
    size: float = 8,
) -> Any:
    """Draw `values` (rows, columns), written into the cells in the form `text`.

    Cells `marked` get a dot and bold figures, others grey ones; cells `hatched` are struck through.
    """
    colours = gain_colours() if diverging else share_colours()
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _grid(axes, values.shape)
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        dark = _is_dark(image.cmap(image.norm(value)))
        strong = marked is not None and bool(marked[i, j])
        ink = "white" if dark else INK if strong or marked is None else "#555555"
        if text is not None:
            weight = "bold" if strong else "normal"
            axes.text(
                j,
                i,
                _short(format(value, text)),
                ha="center",
                va="center",
                color=ink,
                fontsize=size,
                fontweight=weight,
            )
        if strong:
            axes.plot(j + 0.36, i - 0.32, "o", markersize=3.2, color=ink, clip_on=False)
    if hatched is not None:
        _strike(axes, hatched)
    return image


def colour_bar(figure: "Figure", image: Any, axes: Any, label: str) -> None:
    """A slim scale beside `axes`."""
    bar = figure.colorbar(image, ax=axes, label=label, shrink=0.7, aspect=25, pad=0.015)
    bar.outline.set_visible(False)


def intervals(
    axes: "Axes",
    at: Sequence[float] | Array,
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


def _grid(axes: "Axes", shape: tuple[int, ...]) -> None:
    axes.set_xticks(np.arange(shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)


def _strike(axes: "Axes", cells: NDArray[np.bool_]) -> None:
    from matplotlib.patches import Rectangle

    for i, j in np.argwhere(cells):
        axes.add_patch(
            Rectangle(
                (j - 0.5, i - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#777777", linewidth=0
            )
        )


def _is_dark(rgba: tuple[float, float, float, float]) -> bool:
    red, green, blue, _ = rgba
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.5


def _short(figure: str) -> str:
    """Without the sign of a zero and the zero before a point."""
    if not figure.strip("+-0."):
        return figure.strip("+-") if "." not in figure else "0"
    return figure.replace("0.", ".") if figure.lstrip("+-").startswith("0.") else figure
