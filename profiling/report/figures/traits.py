"""Scree plot, loadings with their stability, and the adapters in trait space."""

from typing import TYPE_CHECKING

import numpy as np

from ...findings import TraitFindings
from .heat_map import heat_map
from .labels import place_labels
from .style import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH,
    colour_bar,
    intervals,
    new_figure,
    short_name,
    signed_limit,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4
"""Components drawn, as many as the paper reads."""


def scree(found: TraitFindings) -> "Figure":
    """Share of variance of every component against the permutation null."""
    space = found.space
    figure = new_figure(3.3, width=7.5)
    axes = figure.add_subplot()
    at = np.arange(1, len(space.components_) + 1)
    colours = [BLUE if real else "#C9C9C9" for real in space.supported_]
    axes.bar(at, 100 * space.explained_variance_ratio_, color=colours, width=0.65)
    axes.plot(at, 100 * space.null_, "o-", color=ORANGE, markersize=4, label="95% of permuted gains")
    axes.plot(at, 100 * space.null_mean_, "--", color=GREY, label="mean of permuted gains")
    axes.set(xlabel="component (blue: above the null)", ylabel="% of variance", xticks=at)
    axes.legend()
    return figure


def loadings(found: TraitFindings) -> "Figure":
    """Loadings of the first components, with intervals over resampled test examples."""
    count = min(SHOWN, len(found.space.components_))
    height = 0.9 + 0.22 * len(found.tasks)
    figure = new_figure(height)
    axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    at = np.arange(len(found.tasks))[::-1]
    for i in range(count):
        stable, drawn = found.by_examples, axes[i]
        drawn.axvline(0, color=GREY, linewidth=0.8)
        steady = stable.sign_share[i] >= 0.95
        for kind, colour in ((steady, BLUE), (~steady, GREY)):
            if kind.any():
                intervals(
                    drawn,
                    at[kind],
                    found.space.components_[i][kind],
                    stable.loading_low[i][kind],
                    stable.loading_high[i][kind],
                    colour=colour,
                    open_marker=colour == GREY,
                )
        claimed = "" if found.space.supported_[i] else "\n(not above the null)"
        drawn.set_title(f"component {i + 1}{claimed}")
        drawn.set_xlabel("loading")
        drawn.set_xlim(-1.05, 1.05)
        drawn.grid(axis="y", color="#EEEEEE")
        drawn.set_axisbelow(True)
    axes[0].set_yticks(at, [short_name(t) for t in found.tasks])
    return figure


def trait_plane(found: TraitFindings) -> "Figure":
    """Adapters by name, and ablations as numbered open marks, on the first two components."""
    figure = new_figure(5.2, width=WIDTH if found.ablations else 8)
    axes = figure.add_subplot()
    axes.axhline(0, color="#DDDDDD", linewidth=0.8)
    axes.axvline(0, color="#DDDDDD", linewidth=0.8)
    adapters = _two_columns(100 * found.projections)
    ablations = _two_columns(100 * found.ablation_projections)
    axes.plot(*adapters.T, "o", color=BLUE, markersize=6)
    axes.plot(*ablations.T, "o", color=ORANGE, markersize=5, markerfacecolor="white")
    axes.margins(0.14)
    numbers = [str(i + 1) for i in range(len(ablations))]
    _key(figure, numbers, found.ablations)
    names = [short_name(name, 22) for name in found.adapters]
    place_labels(figure, axes, np.vstack([adapters, ablations]), [*names, *numbers])
    shares = 100 * found.space.explained_variance_ratio_
    axes.set_xlabel(f"component 1, points ({shares[0]:.0f}% of variance)")
    axes.set_ylabel(f"component 2, points ({shares[1]:.0f}% of variance)" if len(shares) > 1 else "no second component")
    return figure


def trait_profiles(found: TraitFindings) -> "Figure":
    """Trait scores of every adapter on the first components."""
    count = min(SHOWN, len(found.space.components_))
    values = 100 * found.projections[:, :count]
    figure = new_figure(1.4 + 0.3 * len(found.adapters), width=7.5)
    axes = figure.add_subplot()
    limit = signed_limit(values)
    image = heat_map(
        axes,
        values,
        rows=[short_name(name) for name in found.adapters],
        columns=[f"{i + 1}{'' if found.space.supported_[i] else ' (not claimed)'}" for i in range(count)],
        limits=(-limit, limit),
        diverging=True,
        text="+.0f",
    )
    axes.set_xlabel("component")
    colour_bar(figure, image, axes, "trait score, points")
    return figure


def _key(figure: "Figure", numbers: list[str], names: tuple[str, ...]) -> None:
    """Beside the plot, which number is which ablation: many lie too close for their names."""
    from matplotlib.lines import Line2D

    if names:
        labels = [f"{n}  {short_name(name)}" for n, name in zip(numbers, names, strict=True)]
        nothing = [Line2D([], [], linestyle="")] * len(names)
        figure.legend(nothing, labels, loc="outside right center", title="ablations", handlelength=0)


def _two_columns(scores: np.ndarray) -> np.ndarray:
    return np.pad(scores, ((0, 0), (0, max(0, 2 - scores.shape[1]))))[:, :2]
