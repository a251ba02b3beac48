"""Is a row that is estimated from a tenth of its examples as far off as its standard errors say?

    python benchmarks/anchor_errors.py
    python benchmarks/anchor_errors.py --outcomes benchmarks/routing/measure_qwen.safetensors

Of the committed outcomes (groups to design on) an adapter is left out, a few of the others are known and twelve data
sets are profiled, all drawn anew each time. Its gains are estimated by the product's anchors in rounds, and held
against those of all its examples.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from routing.table import SMOLLM2, OutcomeTable
from routing.trials import design_table, scores_of
from traitroute.profiling.matrix.anchors import TOLERANCE, AnchorRow, TaskAnchors, rounds

Array = NDArray[np.float64]
SHARES = (0.1, 0.2)
Z = 1.96


@dataclass(frozen=True)
class Estimate:
    """The share of a row's examples that was measured, and by how many points each gain is off and is said to be."""

    share: float
    off: Array
    stated: Array

    @classmethod
    def of(cls, row: AnchorRow, truth: Array) -> "Estimate":
        """What is known of a row by now, beside all of it, (tasks,)."""
        found = row.estimate()
        return cls(row.done / row.size, 100 * (found.scores - truth), 100 * found.errors)


@dataclass(frozen=True)
class Draw:
    """A row to be estimated: its anchors by task, and its `scores` on each task's examples."""

    anchors: Sequence[TaskAnchors]
    scores: Sequence[Array]

    def estimates(self) -> Iterator[tuple[str, Estimate]]:
        """The row after each of the shares, and when it is said to be sure."""
        truth = np.array([each.mean() for each in self.scores])
        for share in SHARES:
            yield f"{share:.0%}", Estimate.of(self._measured(share, 0.0), truth)
        yield f"until {100 * TOLERANCE:g} points are sure", Estimate.of(self._measured(1.0, TOLERANCE), truth)

    def _measured(self, share: float, tolerance: float) -> AnchorRow:
        """The row, measured in rounds up to `share` or until its mean standard error is as small as `tolerance`."""
        row = AnchorRow(self.anchors)
        for upto in rounds(row.size, len(self.anchors), share):
            for task, places in row.next(int(upto) - row.done).items():
                row.add(task, places, self.scores[task][places])
            if tolerance and row.estimate().error <= tolerance:
                break
        return row


def draws(table: OutcomeTable, score: str, known: int, tasks: int, count: int) -> Iterator[Draw]:
    """Rows to be estimated where so many adapters, beside base, and tasks are known."""
    scores = scores_of(table, score)
    marks = [np.nan_to_num(each.astype(np.float64)) for each in (table.likelihood, table.gold_probability)]
    rng = np.random.default_rng(0)
    for _ in range(count):
        new, *others = rng.permutation(len(table.adapters))[: known + 1] + 1
        columns, anchors, own = [0, *others], [], []
        for task in rng.choice(np.unique(table.task), tasks, replace=False):
            rows = np.flatnonzero(table.task == task)
            seen = np.hstack([each[np.ix_(rows, columns)] for each in marks])
            anchors.append(TaskAnchors.of(scores[np.ix_(rows, columns)], seen))
            own.append(scores[rows, new])
        yield Draw(anchors, own)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2)
    parser.add_argument("--score", choices=["strict", "lenient"], default="strict")
    parser.add_argument("--known", type=int, nargs="+", default=[2, 4, 8, 16], help="known adapters")
    parser.add_argument("--tasks", type=int, default=12, help="data sets a row")
    parser.add_argument("--draws", type=int, default=40, help="rows of each kind")
    given = parser.parse_args()
    table = design_table(given.outcomes)
    shown = Table(title=f"{given.outcomes.stem}, {given.score}, {given.draws} rows each", title_justify="left")
    for column in ("known", "measured", "examples, %", "off", "stated", f"within {Z}, %", "beyond 4, %"):
        shown.add_column(column, justify="right")
    for known in [each for each in given.known if each < len(table.adapters)]:
        rows = draws(table, given.score, known, given.tasks, given.draws)
        found: dict[str, list[Estimate]] = {}
        for row in track(rows, f"{known} known", total=given.draws, transient=True):
            for when, estimate in row.estimates():
                found.setdefault(when, []).append(estimate)
        for when, estimates in found.items():
            off, stated = (np.array([getattr(e, name) for e in estimates]) for name in ("off", "stated"))
            beyond = [float((np.abs(off) > z * stated + 1e-9).mean()) for z in (Z, 4)]
            measured = np.mean([e.share for e in estimates])
            means = [f"{np.sqrt((each**2).mean()):.1f}" for each in (off, stated)]
            shares = [f"{100 * each:.0f}" for each in (1 - beyond[0], beyond[1])]
            shown.add_row(str(known), when, f"{100 * measured:.0f}", *means, *shares)
    console = Console(width=120)
    console.print(shown)
    console.print("off, stated: root mean square, in points")


if __name__ == "__main__":
    main()
