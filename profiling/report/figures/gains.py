"""The heat map of gains with significance, and of shares of examples."""

from typing import TYPE_CHECKING

import numpy as np

from ...findings import GainFindings
from ...statistics.significance import GAIN, SIDE_EFFECT
from ...tasks.scoring import Score
from .heat_map import heat_map
from .style import colour_bar, new_figure, short_name, signed_limit

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gain_map(found: GainFindings, score: Score) -> "Figure":
    """Gains of every adapter on every task; dots mark those that are called."""
    tests = found.tests[score]
    percent = score != "likelihood"
    values = 100 * tests.gain if percent else tests.gain
    # One extreme cell must not wash out the rest of a scale without bounds.
    known = np.abs(values[np.isfinite(values)])
    limit = signed_limit(values) if percent else max(0.05, float(np.percentile(known, 97)))
    figure = new_figure(1.8 + 0.34 * len(found.adapters))
    axes = figure.add_subplot()
    image = heat_map(
        axes,
        values,
        rows=[short_name(name) for name in found.adapters],
        columns=[short_name(name, 20) for name in found.tasks],
        limits=(-limit, limit),
        diverging=True,
        text="+.0f" if percent else "+.1f",
        marked=np.isin(tests.verdict, (GAIN, SIDE_EFFECT)),
        size=8 if len(found.tasks) <= 18 else 6.8,
    )
    axes.set_ylabel("adapter")
    colour_bar(figure, image, axes, "gain, points" if percent else "gain, nats a token")
    return figure


def share_map(found: GainFindings, kind: str) -> "Figure":
    """A share of examples for the base model and every adapter, in percent."""
    figure = new_figure(1.8 + 0.3 * (len(found.adapters) + 1))
    axes = figure.add_subplot()
    image = heat_map(
        axes,
        100 * found.shares[kind].share,
        rows=["base model", *(short_name(name) for name in found.adapters)],
        columns=[short_name(name, 20) for name in found.tasks],
        limits=(0, 100),
        text=".0f",
        size=8 if len(found.tasks) <= 18 else 6.8,
    )
    axes.axhline(0.5, color="#1B1B1B", linewidth=0.8)
    colour_bar(figure, image, axes, "% of examples")
    return figure
