"""Likeness of the data sets, by style and by meaning."""

from typing import TYPE_CHECKING

from ...analysis.similarity import Similarity
from .heat_map import heat_map
from .style import colour_bar, new_figure, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def similarity_map(found: Similarity, sources: tuple[str, ...]) -> "Figure":
    """Similarity of every source to every task; a source to itself is its split half, in a frame."""
    from matplotlib.patches import Rectangle

    place = [found.names.index(s) for s in sources]
    values = found.values[place]
    figure = new_figure(1.8 + 0.34 * len(sources))
    axes = figure.add_subplot()
    # A few values just below zero are no reason to give up half of the colours.
    negative = bool((values < -0.1).any())
    image = heat_map(
        axes,
        values,
        rows=[short_name(s) for s in sources],
        columns=[short_name(t, 20) for t in found.names],
        limits=(-1, 1) if negative else (0, 1),
        diverging=negative,
        text=".2f",
        size=8 if len(found.names) <= 18 else 6.8,
    )
    for i, j in enumerate(place):
        axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, edgecolor="#1B1B1B", linewidth=1.2))
    axes.set(xlabel="task", ylabel="source")
    colour_bar(figure, image, axes, "similarity")
    return figure
