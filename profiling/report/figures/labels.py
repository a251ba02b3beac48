"""Names beside the points of a scatter plot, each where it covers the least."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

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
    """Write `names` beside `points` (n, 2), where they cover no other name or point if that can be had."""
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
    """What leaving the frame costs."""
    over = (frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3])
    return _OUTSIDE * sum(max(0.0, each) for each in over)
