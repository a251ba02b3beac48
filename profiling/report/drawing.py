"""How figures look: sizes, colours, heat maps, and names beside points.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; gains run from orange over white to blue,
and what is significant is marked in the cell as well, so that nothing rests on colour alone.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation


Array = NDArray[np.float64]

BLUE, ORANGE, GREEN, PURPLE, GREY, INK = ("#0072B2", "#D55E00", "#009E73", "#8F4F86", "#8A8A8A", "#1B1B1B")
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


_UPRIGHT = 5
"""Up to so many columns have level labels."""
_SLANT: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}


def heat_map(
    axes: "Axes",
    values: Array,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    text: str | NDArray[np.str_],
    diverging: bool = False,
    marked: NDArray[np.bool_] | None = None,
    hatched: NDArray[np.bool_] | None = None,
    size: float = 8,
) -> Any:
    """Draw `values` (rows, columns); `text` is what the cells say, or the form of their figures.

    Cells `marked` get a dot and bold figures; cells `hatched` are struck through; NaN is grey.
    """
    colours = gain_colours() if diverging else share_colours()
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    slant = {} if len(columns) <= _UPRIGHT else _SLANT
    axes.set_xticks(range(len(columns)), columns, **slant)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _grid(axes, values.shape)
    none = np.zeros(values.shape, dtype=bool)
    struck, strong = (none if cells is None else cells for cells in (hatched, marked))
    _strike(axes, struck)
    for i, j in np.argwhere(~np.isnan(values)):
        figure = short_figure(format(values[i, j], text)) if isinstance(text, str) else str(text[i, j])
        colour = image.cmap(image.norm(values[i, j]))
        _write(axes, i, j, figure, colour, strong=bool(strong[i, j]), struck=bool(struck[i, j]), size=size)
    return image


def heat_figure(
    values: Array,
    *,
    height: float,
    width: float = WIDTH,
    rows: Sequence[str],
    columns: Sequence[str],
    scale: str,
    xlabel: str = "",
    ylabel: str = "",
    **options: Any,
) -> "tuple[Figure, Axes]":
    """A figure of one heat map with its colour bar, which `scale` labels; names are shortened."""
    figure = new_figure(height, width=width)
    axes = figure.add_subplot()
    names = [short_name(name, 20) for name in columns]
    image = heat_map(axes, values, rows=[short_name(name) for name in rows], columns=names, **options)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    colour_bar(figure, image, axes, scale)
    return figure, axes


def short_figure(figure: str) -> str:
    """Without the sign of a zero and the zero before a point."""
    if not figure.strip("+-0."):
        return "0"
    return figure.replace("0.", ".", 1) if figure.lstrip("+-").startswith("0.") else figure


def _write(axes: "Axes", i: int, j: int, text: str, colour: Any, *, strong: bool, struck: bool, size: float) -> None:
    ink = "white" if _is_dark(colour) else INK
    weight = "bold" if strong else "normal"
    note = axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=size, fontweight=weight)
    if struck:
        note.set_bbox({"facecolor": colour, "linewidth": 0, "pad": 1})
    if strong:
        axes.plot(j + 0.36, i - 0.32, "o", markersize=3.2, color=ink)


def _grid(axes: "Axes", shape: tuple[int, ...]) -> None:
    axes.set_xticks(np.arange(shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)


def _strike(axes: "Axes", cells: NDArray[np.bool_]) -> None:
    from matplotlib.patches import Rectangle

    look: dict[str, Any] = {"fill": False, "hatch": "////", "edgecolor": "#999999", "linewidth": 0}
    for i, j in np.argwhere(cells):
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **look))


def _is_dark(rgba: tuple[float, float, float, float]) -> bool:
    red, green, blue, _ = rgba
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.5


Box = tuple[float, float, float, float]
"""Left, lower, right and upper edge in pixels."""

# Offsets in points from the point, best first, with the corner of the text that goes there.
_PLACES = (
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (5, 6, "left", "bottom"),
    (-5, 6, "right", "bottom"),
    (5, -6, "left", "top"),
    (-5, -6, "right", "top"),
    (0, 17, "center", "bottom"),
    (0, -17, "center", "top"),
    (14, 15, "left", "bottom"),
    (-14, 15, "right", "bottom"),
    (14, -15, "left", "top"),
    (-14, -15, "right", "top"),
    (0, 32, "center", "bottom"),
    (0, -32, "center", "top"),
    (24, 34, "left", "bottom"),
    (-24, 34, "right", "bottom"),
    (24, -34, "left", "top"),
    (-24, -34, "right", "top"),
    (0, 48, "center", "bottom"),
    (0, -48, "center", "top"),
    (40, 52, "left", "bottom"),
    (40, -52, "left", "top"),
)
_FAR = 10
"""Names at least so far off get a line to their point."""
_POINT = 4
# Pixels out of the frame weigh as much as pixels over this height of text.
_OUTSIDE = 40


def place_labels(figure: "Figure", axes: "Axes", points: NDArray[np.float64], names: Sequence[str]) -> None:
    """Write `names` beside `points` (n, 2), where they cover no other name or point, if possible."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    taken: list[Box] = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in axes.transData.transform(points)]
    frame = axes.bbox.extents
    for (x, y), name in zip(points, names, strict=True):
        notes = [
            axes.annotate(
                name, (x, y), place[:2], textcoords="offset points",
                ha=place[2], va=place[3], fontsize=8, color=INK, arrowprops=_line(place),
            )
            for place in _PLACES
        ]  # fmt: skip
        boxes = [_text_box(note, renderer) for note in notes]
        covered = [sum(_overlap(b, t) for t in taken) + _outside(b, frame) for b in boxes]
        best = int(np.argmin(covered))
        for i, note in enumerate(notes):
            if i != best:
                note.remove()
        taken.append(boxes[best])


def _line(place: tuple[float, float, str, str]) -> dict[str, Any] | None:
    if abs(place[1]) < _FAR:
        return None
    return {"arrowstyle": "-", "color": "#AAAAAA", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}


def _text_box(note: "Annotation", renderer: Any) -> Box:
    """The edges of the text alone, without its line."""
    from matplotlib.text import Text

    note.update_positions(renderer)
    left, lower, right, upper = Text.get_window_extent(note, renderer).extents
    return float(left), float(lower), float(right), float(upper)


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: Box, frame: Sequence[float]) -> float:
    """Penalty for text outside the frame, in the unit of overlapping areas."""
    over = (frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3])
    return _OUTSIDE * sum(max(0.0, each) for each in over)
