"""What the study of docs/paper.md has measured, in a table to which each run adds: no machine here does it in one go.

    python benchmarks/paper_cells.py                    gains of every adapter in the committed table
    python benchmarks/paper_cells.py --tasks svamp,gsm8k --beside sentiment3_shuffled=product_sentiment3
    python benchmarks/paper_cells.py --matrix       cells that differ from base, and components beyond chance
    python benchmarks/paper_cells.py --keep paper.db --run "2026-12-02, AMD, float32"      add a registry's cells

A gain is held against base as the same run measured it, on the same rows: other machines round otherwise. Intervals are
those of skill cards, 95%, of one seed's adapter over the task's rows. `--beside A=B` is how many points A scores more
than B where one run measured both.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from traitroute.adapters import Cell, Registry
from traitroute.cli.console import console, show_matrix
from traitroute.cli.profile import trait_table
from traitroute.profiling.matrix.matrix import TransferMatrix
from traitroute.profiling.statistics.significance import discoveries, paired_bootstrap, score_bounds, sign_p
from traitroute.profiling.traits.space import TraitSpace

CELLS = Path(__file__).parent / "paper_cells.tsv"
BASE = "base"
SCORES = ("strict", "lenient")

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Kept:
    """One adapter's cell of one run: how many tokens it wrote on average, and which rows (n,) it answered right."""

    run: str
    adapter: str
    task: str
    tokens: float
    strict: Right
    lenient: Right

    @classmethod
    def of(cls, run: str, cell: Cell) -> Self:
        """What is kept of a measured cell."""
        found = cell.outcomes
        tokens = float(found.output_tokens.mean())
        return cls(run, cell.adapter or BASE, cell.task, tokens, found.strict, found.lenient)

    @classmethod
    def read(cls, line: Sequence[str]) -> Self:
        """A line of the table."""
        run, adapter, task, tokens, strict, lenient = line
        return cls(run, adapter, task, float(tokens), _bits(strict), _bits(lenient))

    @property
    def line(self) -> list[str]:
        """The cell as a line of the table."""
        return [self.run, self.adapter, self.task, f"{self.tokens:.1f}", _text(self.strict), _text(self.lenient)]

    def scores(self, score: str) -> NDArray[np.float64]:
        """What each row (n,) scored, 0 or 1, strictly or leniently."""
        return np.asarray(getattr(self, score), float)


Run = Mapping[tuple[str, str], Kept]
"""What one run measured, by adapter and task."""


def _bits(text: str) -> Right:
    return np.frombuffer(text.encode(), np.uint8) == ord("1")


def _text(right: Right) -> str:
    return "".join("01"[int(each)] for each in right)


def read(file: Path) -> dict[str, Run]:
    """The table's runs by their names."""
    runs: defaultdict[str, dict[tuple[str, str], Kept]] = defaultdict(dict)
    if file.exists():
        with file.open(encoding="utf-8", newline="") as lines:
            for each in map(Kept.read, csv.reader(lines, delimiter="\t")):
                runs[each.run][each.adapter, each.task] = each
    return dict(runs)


def keep(registry: Path, run: str, file: Path) -> int:
    """Add a registry's cells to the table, in place of those that `run` had before; how many they are."""
    with Registry.open(registry, read_only=True) as opened:
        tasks = set(opened.tasks())
        found = [Kept.of(run, cell) for cell in opened.cells() if cell.task in tasks]
    runs = read(file)
    runs[run] = {**runs.get(run, {}), **{(each.adapter, each.task): each for each in found}}
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, delimiter="\t", lineterminator="\n")
        writer.writerows(cells[key].line for _, cells in sorted(runs.items()) for key in sorted(cells))
    return len(found)


def gains(cells: Run, tasks: Sequence[str], score: str) -> dict[str, list[str]]:
    """Every adapter's gain over base on each of `tasks`, with its interval and the tokens it wrote."""
    adapters = sorted({adapter for adapter, _ in cells}, key=lambda name: (name != BASE, name))
    return beside(cells, {adapter: (adapter, BASE) for adapter in adapters}, tasks, score)


def beside(cells: Run, pairs: Mapping[str, tuple[str, str]], tasks: Sequence[str], score: str) -> dict[str, list[str]]:
    """How many points one adapter scores more than another on each of `tasks`; no row where the run has neither."""
    rows = {name: [_entry(cells, *pair, task, score) for task in tasks] for name, pair in pairs.items()}
    return {name: row for name, row in rows.items() if any(row)}


def together(cells: Run, adapters: Sequence[str], tasks: Sequence[str], score: str) -> Table:
    """The mean gain of several adapters over the rows of several tasks, whose every cell the run has.

    The 95% bootstrap interval is over rows, each with all of the adapters: another row is drawn, no other training.
    """
    table = Table("adapters", "tasks", "rows", "points")
    keys = [(adapter, task) for adapter in (BASE, *adapters) for task in tasks]
    if set(keys) <= set(cells):
        right = {
            adapter: np.concatenate([cells[adapter, task].scores(score) for task in tasks])
            for adapter in (BASE, *adapters)
        }
        differences = np.mean([right[adapter] - right[BASE] for adapter in adapters], axis=0)
        found = paired_bootstrap(differences)
        points = [100 * float(of) for of in (differences.mean(), found.low, found.high)]
        table.add_row(
            ", ".join(adapters), ", ".join(tasks), f"{differences.size}", "{:+.1f} [{:+.1f}, {:+.1f}]".format(*points)
        )
    return table


def whole_matrix(cells: Run, sources: Sequence[str], tasks: Sequence[str], score: str) -> TransferMatrix | None:
    """The matrix of `sources` on those of `tasks` on which base and all of them were measured, two or more."""
    whole = tuple(task for task in tasks if all((each, task) in cells for each in (BASE, *sources)))
    if len(whole) < 2:
        return None

    def right(adapter: str, task: str) -> NDArray[np.float64]:
        return cells[adapter, task].scores(score)

    return TransferMatrix(
        adapters=tuple(sources),
        tasks=whole,
        base=np.array([right(BASE, task).mean() for task in whole]),
        scores=np.array([[right(each, task).mean() for task in whole] for each in sources]),
        example_gains=tuple(
            np.stack([right(each, task) - right(BASE, task) for each in sources], axis=1) for task in whole
        ),
    )


def shown(matrix: TransferMatrix) -> Table:
    """Cells in which source and base differ by the sign test, at a false-discovery rate of 5% over the matrix."""
    q, called = discoveries(np.stack([sign_p(gains) for gains in matrix.example_gains], axis=1))
    ups, downs = ((called & (sign * matrix.gains > 0)).sum() for sign in (1, -1))
    size = f"{len(matrix.adapters)} x {len(matrix.tasks)}"
    table = Table("trained on", "task", "points", "q", title=f"{size}, shown: {ups} gains, {downs} side effects")
    for i, j in np.argwhere(called):
        source, task = matrix.adapters[i], matrix.tasks[j]
        own = ", its own" if source == task else ""
        table.add_row(source, task + own, f"{100 * matrix.gains[i, j]:+.0f}", f"{q[i, j]:.3f}")
    return table


def components(matrix: TransferMatrix) -> Table:
    """Principal components of the gains, beside those of gains that are permuted among sources."""
    space = TraitSpace().fit(matrix.gains)
    table = trait_table(space, matrix.tasks)
    four, of_null = space.explained_variance_ratio_[:4].sum(), space.null_mean_[:4].sum()
    table.caption = f"the first four hold {four:.0%}, of permuted gains {of_null:.0%}"
    return table


def _entry(cells: Run, of: str, less: str, task: str, score: str) -> str:
    """The difference on a task with its interval; base's own score; nothing where a cell is missing."""
    cell, other = cells.get((of, task)), cells.get((less, task))
    if cell is None or other is None:
        return ""
    right, before = (each.scores(score) for each in (cell, other))
    if cell is other:
        return f"{100 * right.mean():.0f}%, {cell.tokens:.0f}"
    low, high = score_bounds((right - before)[:, None])
    points, least, most = (f"{round(100 * of):+d}" for of in ((right - before).mean(), low[0], high[0]))
    return f"{points} [{least}, {most}], {cell.tokens:.0f}"


def main() -> None:
    """Add cells to the table, or print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="REGISTRY", help="add what this registry holds")
    parser.add_argument("--run", help="with --keep: date, processor and precision of what is added")
    parser.add_argument("--table", type=Path, default=CELLS, help="the table (default: the committed one)")
    parser.add_argument("--tasks", help="only these, with commas between (default: all)")
    parser.add_argument("--score", choices=SCORES, default=SCORES[0])
    parser.add_argument(
        "--matrix",
        nargs="?",
        const="",
        metavar="SOURCES",
        help="which cells differ from base, and how many components of the gains are beyond chance; of these adapters "
        "(default: all that have the name of a task), on the tasks that a run measured all of them on",
    )
    parser.add_argument("--beside", action="append", default=[], metavar="A=B", help="compare A with B; repeatable")
    parser.add_argument("--together", metavar="A,B,C", help="the mean gain of these adapters over all rows of --tasks")
    given = parser.parse_args()
    if given.keep:
        if not given.run:
            parser.error("--keep wants --run, by which cells of one machine are told from another's")
        print(f"{keep(given.keep, given.run, given.table)} cells of {given.keep} are in {given.table}")
        return
    if any(pair.count("=") != 1 for pair in given.beside):
        parser.error("--beside wants two adapters, A=B")
    pairs = {f"{first} less {second}": (first, second) for first, second in (each.split("=") for each in given.beside)}
    runs = read(given.table)
    measured = {key for cells in runs.values() for key in cells}
    adapters, known = ({key[place] for key in measured} for place in (0, 1))
    tasks = given.tasks.split(",") if given.tasks else sorted(known)
    if unknown := sorted(set(tasks) - known):
        parser.error(f"{unknown[0]} is in no cell of {given.table}")
    sources = given.matrix.split(",") if given.matrix else sorted(adapters & known)
    if unknown := sorted(set(sources) - adapters):
        parser.error(f"{unknown[0]} is no adapter of {given.table}")
    pooled = given.together.split(",") if given.together else []
    if unknown := sorted(set(pooled) - adapters):
        parser.error(f"{unknown[0]} is no adapter of {given.table}")
    for run, cells in sorted(runs.items()):
        title = f"{run}, {given.score}: points more than"
        if given.matrix is not None:
            if (matrix := whole_matrix(cells, sources, tasks, given.score)) is not None:
                console.print(f"{run}, {given.score}", shown(matrix), components(matrix))
        elif rows := gains(cells, tasks, given.score):
            show_matrix(f"{title} base, and tokens written", rows, tasks)
        if rows := beside(cells, pairs, tasks, given.score):
            show_matrix(f"{title} the other adapter, and tokens written", rows, tasks)
        if pooled and (table := together(cells, pooled, tasks, given.score)).row_count:
            console.print(f"{title} base, all together", table)


if __name__ == "__main__":
    main()
