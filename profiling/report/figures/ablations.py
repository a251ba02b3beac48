"""Effects of altered sources, and what controls explain."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...findings.ablations import Control
from ...statistics.significance import GAIN, SIDE_EFFECT, GainTests
from .style import BLUE, GREY, ORANGE, intervals, new_figure, panels, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ablation_effects(found: GainTests, origins: dict[str, str]) -> "Figure":
    """A panel an ablation: the variant less its original on every source task, with intervals."""
    figure, axes = panels(
        len(found.adapters),
        columns=(3,),
        height=0.8 + 0.22 * len(found.tasks),
        sharey=True,
        sharex=True,
    )
    at = np.arange(len(found.tasks))[::-1]
    for i, (each, name) in enumerate(zip(axes, found.adapters, strict=True)):
        each.axvline(0, color=GREY, linewidth=0.8)
        called = np.isin(found.verdict[i], (GAIN, SIDE_EFFECT))
        measured = ~np.isnan(found.gain[i])
        for kind, colour in ((called & measured, BLUE), (~called & measured, GREY)):
            if kind.any():
                values = (100 * array[i][kind] for array in (found.gain, found.low, found.high))
                intervals(each, at[kind], *values, colour=colour, open_marker=colour == GREY)
        each.set_title(f"{short_name(name)}\nless {short_name(origins[name])}")
        each.grid(axis="y", color="#EEEEEE")
        each.set_axisbelow(True)
        each.set_yticks(at, [short_name(t) for t in found.tasks])
    figure.supxlabel("change of the score, points", fontsize=9)
    return figure


def explained_shares(controls: Sequence[Control]) -> "Figure":
    """Gain of each source's adapter beside that of its control, on its own task and elsewhere."""
    figure = new_figure(1.2 + 0.5 * len(controls))
    axes = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(controls))[::-1].astype(float)
    for each, (title, found) in zip(axes, _sides(controls), strict=True):
        each.axvline(0, color=GREY, linewidth=0.8)
        known = [i for i, one in enumerate(found) if one is not None]
        pairs = (
            (0.14, "gain", BLUE, "adapter of the source", "o"),
            (-0.14, "control_gain", ORANGE, "its control", "s"),
        )
        for offset, kind, colour, label, marker in pairs:
            rows = [getattr(found[i], kind) for i in known]
            values = (100 * np.array([getattr(r, k) for r in rows]) for k in ("mean", "low", "high"))
            intervals(
                each,
                at[known] + offset,
                *values,
                colour=colour,
                label=label,
                marker=marker,
                open_marker=marker == "s",
            )
        for i in known:
            share = found[i].share
            text = "no share" if np.isnan(share) else f"{100 * share:.0f}%"
            each.text(1.01, at[i], text, transform=each.get_yaxis_transform(), va="center", fontsize=8)
        each.set_title(title)
        each.set_xlabel("gain over the base model, points")
        each.grid(axis="y", color="#EEEEEE")
        each.set_axisbelow(True)
        each.set_ylim(-0.6, len(controls) - 0.4)
    axes[1].tick_params(axis="y", length=0)
    axes[0].set_yticks(at, [f"{short_name(c.ablation.name)}\nof {short_name(c.ablation.of)}" for c in controls])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _sides(controls: Sequence[Control]) -> list:
    own = [c.own for c in controls]
    return [
        ("on the source's own task", own),
        ("on the other source tasks", [c.elsewhere for c in controls]),
    ]
