"""Figures as files: the same findings give the same bytes."""

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 160


@dataclass(frozen=True)
class Image:
    """One figure as PNG and as SVG; `width` is its natural width in CSS pixels."""

    png: bytes
    svg: bytes
    width: int

    @property
    def data_uri(self) -> str:
        """The SVG as text that an `img` can hold: sharp at any size, and apart from the page's names."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


def render(figure: "Figure") -> Image:
    """Draw `figure` without a display, and without the date that would make each run differ."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    png, svg = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(png, format="png", dpi=DPI)
    FigureCanvasSVG(figure)
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return Image(png.getvalue(), svg.getvalue(), round(100 * figure.get_figwidth()))
