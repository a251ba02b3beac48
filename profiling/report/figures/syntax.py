"""Success ratios of dependency relations."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...analysis.linguistics import RelationRatio
from .style import BLUE, GREY, intervals, panels, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12


_COARSE = (0.01, 0.1, 1, 10, 100)
_MARKS = (0.01, 0.03, 0.1, 0.25, 0.5, 1, 2, 4, 10, 30, 100)


def strongest(rows: list[RelationRatio]) -> list[RelationRatio]:
    """The relations that differ most from the texts at large, highest ratio first."""
    far = sorted(rows, key=lambda r: (r.p, -abs(np.log(r.relative))))[:SHOWN]
    return sorted(far, key=lambda r: -r.ratio)


def relation_ratios(relations: Mapping[str, list[RelationRatio]]) -> "Figure":
    """A panel an adapter: success over the base model's where a relation occurs, with intervals."""
    shown = {a: strongest(rows) for a, rows in relations.items() if rows}
    most = max(map(len, shown.values()))
    figure, axes = panels(len(shown), columns=(5, 4), height=0.75 + 0.19 * most)
    for each, (adapter, rows) in zip(axes, shown.items(), strict=True):
        at = np.arange(len(rows))[::-1]
        ratio, low, high = (np.array([getattr(r, k) for r in rows]) for k in ("ratio", "low", "high"))
        called = np.array([r.q <= 0.05 for r in rows])
        overall = float(np.median([r.ratio / r.relative for r in rows]))
        # On a logarithmic axis, a bar starts at the ratio of 1: no change.
        each.barh(at, ratio - 1, left=1, height=0.6, color=[BLUE if c else "#CFD8DC" for c in called])
        intervals(each, at, ratio, low, high, colour="#333333", marker=".")
        each.axvline(1, color=GREY, linewidth=0.8)
        each.axvline(overall, color="#333333", linewidth=0.9, linestyle="--")
        each.set_xscale("log")
        _ticks(each, float(low.min()), float(high.max()))
        each.set_yticks(at, [r.relation for r in rows])
        for tick, is_called in zip(each.get_yticklabels(), called, strict=True):
            tick.set_fontweight("bold" if is_called else "normal")
        each.set_title(short_name(adapter))
    figure.supxlabel("success of the adapter / success of the base model (dashed: on all prompts)", fontsize=9)
    return figure


def _ticks(axes, low: float, high: float) -> None:
    low, high = min(low, 0.8), max(high, 1.25)
    inside = [m for m in _MARKS if low / 1.1 <= m <= high * 1.1]
    # Where the axis is long, the finer marks would run into each other.
    marks = inside if len(inside) <= 4 else [m for m in inside if m in _COARSE]
    axes.set_xlim(low / 1.1, high * 1.1)
    axes.set_xticks(marks, [f"{m:g}" for m in marks])
    axes.minorticks_off()
