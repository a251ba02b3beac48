"""How much of a gain is luck of training: the same source, trained again with another seed.

Intervals and tests elsewhere in the report are over test examples, with the adapters as they are. What a source does is
known only as far as another adapter of it does the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..statistics.significance import Array, GainTests, compare
from ..study import Study
from .drawing import BLUE, GREY, new_figure
from .section import Missing, Picture, Row, Section, Table, counted, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RetrainingFindings:
    """By the score that routes, a row an adapter that was trained again (`origins`: of which source), a column a task:
    gains over the base model of the `first` adapter and of the one trained `again`, and their `difference`.
    """

    origins: Mapping[str, str]
    first: GainTests
    again: GainTests
    difference: GainTests

    @property
    def pairs(self) -> Array:
        """Both gains of every cell that both were measured on, (n, 2)."""
        both = np.stack([self.first.gain.ravel(), self.again.gain.ravel()], axis=1)
        return both[np.isfinite(both).all(axis=1)]

    @property
    def called(self) -> tuple[int, int]:
        """How many cells of the first adapters are called, and how many of these are called alike again."""
        called = self.first.called & (self.again.verdict != "not measured")
        return int(called.sum()), int((called & (self.first.verdict == self.again.verdict)).sum())


def find_retraining(
    study: Study, *, q: float = 0.05, n_resamples: int = 2000, seed: int = 0
) -> RetrainingFindings | Missing:
    """Set every source that was trained again beside its first adapter."""
    origins = {a.name: a.of for a in study.ablations.values() if a.is_unchanged}
    if not origins:
        return Missing("no source of this profile was trained again: give an ablation with the change `retrained`")
    tasks = tuple(t for t in study.tasks if any((a, t) in study.outcomes for a in origins))

    def tests(pairs: Mapping[str, tuple[str | None, str | None]]) -> GainTests:
        return compare(study.outcomes, pairs, tasks, score=study.routing, q=q, n_resamples=n_resamples, seed=seed)

    return RetrainingFindings(
        origins=origins,
        first=tests({name: (of, None) for name, of in origins.items()}),
        again=tests({name: (name, None) for name in origins}),
        difference=tests({name: (name, of) for name, of in origins.items()}),
    )


def draw_retraining(findings: RetrainingFindings) -> "Figure":
    """Gains of the adapters trained again against those of the first, a mark a cell."""
    figure = new_figure(4.2, width=5.2)
    axes = figure.add_subplot()
    pairs, called = 100 * findings.pairs, findings.difference.called
    measured = np.isfinite(findings.difference.gain)
    ends = [float(pairs.min()) - 3, float(pairs.max()) + 3]
    axes.plot(ends, ends, color=GREY, linewidth=0.8)
    for kind, colour in ((~called[measured], GREY), (called[measured], BLUE)):
        axes.plot(*pairs[kind].T, "o", color=colour, markersize=4)
    axes.set(xlabel="gain of the first, points", ylabel="gain of the one trained again, points", aspect="equal")
    return figure


_INTRO = (
    "Some sources were trained a second time, on the same rows with another seed. Tests and intervals of the other "
    "sections are over test examples and take the adapters as they are; here is how far the adapters differ themselves."
)


def retraining_section(findings: RetrainingFindings) -> Section:
    """Gains of both, and the cells in which they differ."""
    picture = Picture(
        "retraining", "Gains of the same source, trained twice", draw_retraining(findings),
        f"{retraining_sentence(findings)} Filled blue marks: cells in which the two are shown to differ.",
        f"Scatter of the gains of both trainings. {retraining_sentence(findings)}",
    )  # fmt: skip
    rows: list[Row] = [
        {
            "trained_again": name,
            "of": of,
            "task": task,
            "first_gain": float(findings.first.gain[i, j]),
            "first_verdict": str(findings.first.verdict[i, j]),
            "again_gain": float(findings.again.gain[i, j]),
            "again_verdict": str(findings.again.verdict[i, j]),
            **findings.difference.row(i, j),
        }
        for i, (name, of) in enumerate(findings.origins.items())
        for j, task in enumerate(findings.difference.tasks)
    ]
    return Section("retraining", "Trained again", _INTRO, (picture,), (Table("retraining", "Both gains", rows),))


def retraining_sentence(findings: RetrainingFindings) -> str:
    """In how many cells both differ, by how much on the median, and how many calls are made again."""
    differ, cells = int(findings.difference.called.sum()), len(findings.pairs)
    median = float(np.median(np.abs(np.diff(findings.pairs, axis=1))))
    called, alike = findings.called
    again = (
        f"Of {called} {'gain or side effect' if called == 1 else 'gains or side effects'} of the first adapters "
        f"{alike or 'none'} "
        f"{'is' if alike == 1 else 'are'} called again, alike."
        if called
        else "No gain or side effect of the first adapters is called."
    )
    return (
        f"In {differ or 'none'} of {counted(cells, 'cell')} the two trainings are shown to differ at a false-discovery "
        f"rate of {percent(findings.difference.q)}; the median difference of their gains is {100 * median:.1f} points. "
        f"{again}"
    )
