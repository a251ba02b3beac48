"""The heat map: a value a cell, written out, with marks that do not rest on colour."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .style import INK, Array, gain_colours, share_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        said = short_figure(format(values[i, j], text)) if isinstance(text, str) else str(text[i, j])
        colour = image.cmap(image.norm(values[i, j]))
        _write(
            axes,
            i,
            j,
            said,
            colour,
            strong=bool(strong[i, j]),
            struck=bool(struck[i, j]),
            size=size,
        )
    return image


def short_figure(figure: str) -> str:
    """Without the sign of a zero and the zero before a point."""
    if not figure.strip("+-0."):
        return "0"
    return figure.replace("0.", ".", 1) if figure.lstrip("+-").startswith("0.") else figure


def _write(axes: "Axes", i: int, j: int, said: str, colour: Any, *, strong: bool, struck: bool, size: float) -> None:
    ink = "white" if _is_dark(colour) else INK
    weight = "bold" if strong else "normal"
    note = axes.text(j, i, said, ha="center", va="center", color=ink, fontsize=size, fontweight=weight)
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
