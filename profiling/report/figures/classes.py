"""Confusion matrices, and which labels adapters predict more often than they are true."""

from typing import TYPE_CHECKING

import numpy as np

from ...findings import ClassFindings
from .style import BLUE, GREY, SERIES, panels, share_colours, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABELS = 6
"""Tasks with more labels are in the tables only."""


def small_tasks(found: ClassFindings) -> list[str]:
    """Tasks with few enough labels to be drawn."""
    return [t for t in found.tasks if len(found.confusions[None, t].labels) <= MOST_LABELS]


def confusions(found: ClassFindings, task: str) -> "Figure":
    """Confusion matrices of the base model and every adapter on one task, in percent of the true class."""
    names = (None, *found.adapters)
    labels = found.confusions[None, task].labels
    said = [*(short_name(label, 14) for label in labels), "none"]
    figure, axes = panels(len(names), columns=(5, 4), height=0.9 + 0.3 * len(labels), sharex=True, sharey=True)
    for each, name in zip(axes, names, strict=True):
        counts = found.confusions[name, task].counts
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.divide(100.0 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
        each.imshow(shares, cmap=share_colours(), vmin=0, vmax=100, aspect="auto")
        for (i, j), share in np.ndenumerate(shares):
            if not np.isnan(share):
                each.text(
                    j,
                    i,
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if share > 68 else "#333333",
                )
        each.axvline(len(labels) - 0.5, color="white", linewidth=3)
        each.set_title(
            short_name(name or "base model"),
            fontweight="bold" if name in (None, task) else "normal",
        )
        each.set_xticks(range(len(said)), said, rotation=35, ha="right", rotation_mode="anchor")
        each.set_yticks(range(len(labels)), [short_name(label, 14) for label in labels])
        each.tick_params(length=0)
        each.spines[:].set_visible(False)
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("true", fontsize=9)
    return figure


def prior_shifts(found: ClassFindings, tasks: list[str]) -> "Figure":
    """Predicted less true shares of every label, a panel a task; filled where the adapter has moved."""
    names = (None, *found.adapters)
    figure, axes = panels(len(tasks), columns=(3,), height=0.75 + 0.26 * len(names), sharey=True)
    moved = set(found.moved)
    rows = np.arange(len(names))[::-1]
    for each, task in zip(axes, tasks, strict=True):
        labels = [*found.confusions[None, task].labels, "none"]
        for j, label in enumerate(labels):
            offset = 0.3 * (0.5 - (j + 0.5) / len(labels)) * 2
            colour = GREY if label == "none" and j == len(labels) - 1 else SERIES[j % len(SERIES)]
            value, low, high = _column(found, task, j)
            each.barh(
                rows + offset,
                value,
                height=0.52 / len(labels),
                color=colour,
                label=short_name(label, 14),
            )
            each.hlines(rows + offset, low, high, color="#222222", linewidth=0.7)
        for row, name in zip(rows, names, strict=True):
            if name is not None and (name, task) in moved:
                each.plot(
                    1.0,
                    row,
                    marker="o",
                    markersize=3.5,
                    color=BLUE,
                    transform=each.get_yaxis_transform(),
                    clip_on=False,
                )
        each.axvline(0, color=GREY, linewidth=0.8)
        each.axhline(rows[0] - 0.5, color="#CCCCCC", linewidth=0.8)
        each.set_title(short_name(task))
        each.set_xlim(-105, 105)
        each.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.07),
            ncols=2,
            handlelength=1,
            columnspacing=1,
            fontsize=7.5,
        )
        each.set_yticks(rows, [short_name(name or "base model", 20) for name in names])
    figure.supxlabel("predicted less true share, points", fontsize=9)
    return figure


def _column(found: ClassFindings, task: str, label: int) -> np.ndarray:
    """Shift and bounds of one label, in points, for base and adapters: (3, names)."""
    shifts = [found.shifts[a, task] for a in found.adapters]
    values = [shifts[0].base[label], *(s.adapter[label] for s in shifts)]
    bounds = [shifts[0].base_bounds[label], *(s.adapter_bounds[label] for s in shifts)]
    return 100 * np.array([values, *np.transpose(bounds)])
