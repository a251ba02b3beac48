"""How well is an adapter routed to that joins a small fleet?

    python benchmarks/reprofiling_fleets.py --json out.json

From the committed outcomes; no model is run. Each adapter joins fleets drawn from the others: projected
onto their traits alone, with what the traits cannot express of its row, as `adapters measure` joins it, and fitted anew
with all. A fifth of every data set's examples is held out of all that and asked. Five minutes on one core.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from routing.ours import fit_requests, rows_of
from routing.table import SMOLLM2, OutcomeTable
from routing.trials import design_table, fold_list
from traitroute.profiling import TraitSpace
from traitroute.router import Router, RoutingProfile, fit_profile

Rows = NDArray[np.intp]
Array = NDArray[np.float64]
SIZES = (3, 5, 9, 15)
CLEAR = 0.02
"""Adapters whose mean gains on a task differ by no more are as good as each other there."""


@dataclass(frozen=True)
class Joined:
    """What became of the requests asked when an adapter joined, of `asked`.

    `score` is their mean score. `took` is how many went to the newcomer, `wrongly` those for whose task it is clearly
    worse than what they were routed to before, `missed` those that went elsewhere though it is clearly better, and
    `others` those that moved between other adapters.
    """

    score: float
    took: int
    wrongly: int
    missed: int
    others: int
    asked: int


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The table with its measured rows and those asked; `means` (tasks, 1 + a) are mean scores, base's first."""

    table: OutcomeTable
    measured: Rows
    asked: Rows
    task: Rows
    means: Array

    @classmethod
    def of(cls, table: OutcomeTable) -> "Outcomes":
        """Hold a fifth of every data set's examples out."""
        fold = fold_list(table, "new_rows")[0]
        measured = fold.fit[np.argsort(table.task[fold.fit], kind="stable")]
        names, task = np.unique(table.task[measured], return_inverse=True)
        scores = table.strict.astype(np.float64)
        means = np.array([scores[measured][task == i].mean(axis=0) for i in range(len(names))])
        return cls(table, measured, fold.test, task, means)

    def fit(self, adapters: Sequence[int]) -> tuple[TraitSpace, RoutingProfile]:
        """Fit traits and routing on some of the adapters."""
        table, rows, kept = self.table, self.measured, list(adapters)
        gains = (self.means[:, 1:] - self.means[:, :1])[:, kept].T
        traits = TraitSpace(n_permutations=100).fit(gains)
        requests = fit_requests(table, rows, table.strict[rows].astype(np.float64), kept)
        names = [table.adapters[i] for i in kept]
        scores = traits.transform(gains)
        return traits, fit_profile(names, requests, scores, n_traits=traits.n_traits_)

    def choose(self, profile: RoutingProfile) -> Rows:
        """The column of the table that each request asked is routed to."""
        columns = np.array([0, *(1 + self.table.adapters.index(name) for name in profile.adapters)])
        return columns[1 + Router(profile).choose(self.table.marks[self.asked].tolist()).chosen]

    def judge(self, chosen: Rows, before: Rows, new: int) -> Joined:
        """Compare choices with those before adapter `new` joined."""
        rows = np.arange(len(self.asked))
        place = {int(t): i for i, t in enumerate(np.unique(self.table.task[self.measured]))}
        worth = self.means[[place[int(t)] for t in self.table.task[self.asked]]]
        took, own = chosen == 1 + new, worth[:, 1 + new]
        return Joined(
            score=float(self.table.strict[self.asked, chosen].mean()),
            took=int(took.sum()),
            wrongly=int((took & (own < worth[rows, before] - CLEAR)).sum()),
            missed=int((~took & (own > worth[rows, chosen] + CLEAR)).sum()),
            others=int((~took & (chosen != before)).sum()),
            asked=len(rows),
        )


def join(outcomes: Outcomes, fleet: Sequence[int], new: int) -> dict[str, Joined]:
    """Let adapter `new` join `fleet` in each way."""
    table, name = outcomes.table, outcomes.table.adapters[new]
    traits, profile = outcomes.fit(fleet)
    gains = outcomes.means[:, 1 + new] - outcomes.means[:, 0]
    scores, rows = traits.transform(gains[None])[0], rows_of(table, new)
    before = outcomes.choose(profile)
    ways = {
        "before": profile,
        "projected alone": profile.with_adapter(name, scores, rows),
        "joined": profile.with_adapter(name, scores, rows, gains=gains),
        "fitted anew": outcomes.fit([*fleet, new])[1],
    }
    return {way: outcomes.judge(outcomes.choose(p), before, new) for way, p in ways.items()}


def summary(found: Sequence[Mapping[str, Joined]]) -> dict[str, dict[str, float]]:
    """Mean figures of each way."""
    return {
        way: {key: float(np.mean([asdict(each[way])[key] for each in found])) for key in asdict(found[0][way])}
        for way in found[0]
    }


def report(size: int, found: Mapping[str, Mapping[str, float]], console: Console) -> None:
    """Print the table of one size."""
    table = Table(title=f"an adapter joins {size}", title_justify="left")
    table.add_column("way")
    for column in ("score", "took", "wrongly", "missed", "others", "asked"):
        table.add_column(column, justify="right")
    for way, figures in found.items():
        table.add_row(
            way,
            *(f"{v:.3f}" if key == "score" else f"{v:.1f}" for key, v in figures.items()),
        )
    console.print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="An adapter joins a small fleet.")
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cases", type=int, help="only so many adapters that join, to see that it runs")
    given = parser.parse_args()
    start = time.perf_counter()
    outcomes = Outcomes.of(design_table(given.outcomes))
    n = len(outcomes.table.adapters)
    console = Console(width=110)
    figures: dict[str, Any] = {}
    with Progress(console=console, transient=True) as progress:
        for size in map(int, given.sizes.split(",")):
            draw = np.random.default_rng(size)
            found = []
            for new in progress.track(range(n)[: given.cases], description=f"fleets of {size}"):
                others = [i for i in range(n) if i != new]
                fleet = sorted(draw.choice(others, size, replace=False).tolist())
                found.append(join(outcomes, fleet, new))
            figures[str(size)] = summary(found)
            report(size, figures[str(size)], console)
    print(f"{time.perf_counter() - start:.0f} s")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
