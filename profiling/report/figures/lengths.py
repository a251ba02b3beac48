"""Densities of output lengths, and where each habit lies between base model and source."""

from typing import TYPE_CHECKING

import numpy as np

from ...findings import LengthFindings
from .heat_map import heat_map, short_figure
from .style import BLUE, GREY, ORANGE, colour_bar, new_figure, panels, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TICKS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000)


def length_densities(found: LengthFindings) -> "Figure":
    """A panel an adapter: what it writes elsewhere, beside base model and source."""
    figure, axes = panels(len(found.adapters), columns=(5, 4), height=1.75)
    for each, adapter in zip(axes, found.adapters, strict=True):
        lengths = found.densities[adapter]
        at = np.log1p(lengths.grid)
        # One length alone is a spike of any height, so all curves get the same.
        source, base, wrote = (d / d.max() for d in (lengths.source, lengths.base, lengths.adapter))
        each.fill_between(at, source, color=ORANGE, alpha=0.18, linewidth=0)
        each.plot(at, source, ":", color=ORANGE, label="source's gold answers")
        each.plot(at, base, "--", color=GREY, label="base model, other tasks")
        each.plot(at, wrote, color=BLUE, linewidth=1.8, label="adapter, other tasks")
        each.set_title(short_name(adapter))
        ticks = [t for t in _TICKS if np.log1p(t) <= at[-1]]
        each.set_xticks(np.log1p(ticks), [str(t) for t in ticks])
        each.set_yticks([])
        each.spines["left"].set_visible(False)
    figure.supxlabel("tokens", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def habit_weights(found: LengthFindings) -> "Figure":
    """Weight of the source in each adapter's lengths; struck through where it is no interpolation."""
    shape = (len(found.adapters), len(found.tasks))
    habits = [found.habits[a, t] for a in found.adapters for t in found.tasks]
    weights = np.array([h.weight for h in habits]).reshape(shape)
    verdicts = np.array([h.verdict for h in habits]).reshape(shape)
    marks = np.where(verdicts == "undecided", "?", "")
    said = np.char.add(np.vectorize(lambda w: short_figure(f"{w:.2f}"))(weights), marks)
    figure = new_figure(1.9 + 0.34 * shape[0], width=8.5)
    axes = figure.add_subplot()
    image = heat_map(
        axes,
        weights,
        rows=[short_name(a) for a in found.adapters],
        columns=[short_name(t, 20) for t in found.tasks],
        limits=(0, 1),
        text=said,
        hatched=verdicts == "neither",
    )
    axes.set(xlabel="answering", ylabel="adapter")
    colour_bar(figure, image, axes, "0: base model's lengths, 1: source's")
    return figure
