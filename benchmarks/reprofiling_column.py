"""What does one more task bring, and change? A data set joins the profile of the others as a column.

    python benchmarks/reprofiling_column.py --json out.json

From the committed outcomes; no model is run. Each data set of the groups to design on is in turn left out of the
profile with all that is asked of it, then half of its examples join as `traitroute tasks add` joins them, traits and
demand fitted anew; the other half is asked. Beside it the traits are kept, and only the demand is fitted anew.
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
from rich.progress import track
from rich.table import Table
from routing.ours import fit_requests
from routing.table import SMOLLM2, OutcomeTable
from routing.trials import design_table
from traitroute.profiling import TraitSpace
from traitroute.router import Router, RoutingProfile, fit_profile

Rows = NDArray[np.intp]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """What a data set's column came to: mean scores of its requests that were asked, and decisions.

    `base`, `before`, `after` are scores of base and of the router without and with the column, `best` that of the
    adapter that is best on the measured half. `kept` is the share of all requests that are routed alike where the
    traits were kept, `moved` the share of requests of other data sets that the column moves, and `gained` what that is
    worth in score. `examples` and `tokens` are the column's share of those of all columns.
    """

    name: str
    base: float
    before: float
    after: float
    best: float
    kept: float
    moved: float
    gained: float
    examples: float
    tokens: float


def column(table: OutcomeTable, name: str) -> Column:
    """Leave the data set `name` out, and let half of its examples join."""
    own = np.flatnonzero((table.dataset == name) & (table.kind == "main"))
    drawn = np.random.default_rng(0).permutation(own)
    measured, asked = np.sort(drawn[: len(own) // 2]), np.sort(drawn[len(own) // 2 :])
    pool = table.kind == "main"
    others = np.flatnonzero(pool & (table.dataset != name))
    more = np.concatenate([others, measured])
    before_traits, before = fitted(table, others)
    _, after = fitted(table, more)
    _, kept = fitted(table, more, before_traits, others)
    elsewhere = np.flatnonzero(table.dataset != name)
    routed = {key: choose(p, table, asked) for key, p in (("before", before), ("after", after))}
    old, new = choose(before, table, elsewhere), choose(after, table, elsewhere)
    same = [np.concatenate([choose(p, table, elsewhere), choose(p, table, asked)]) for p in (after, kept)]
    scores = table.strict.astype(np.float64)
    best = int(scores[measured].mean(axis=0).argmax())
    tokens = table.output_tokens.astype(np.float64)
    return Column(
        name=name,
        base=float(scores[asked, 0].mean()),
        before=float(scores[asked, routed["before"]].mean()),
        after=float(scores[asked, routed["after"]].mean()),
        best=float(scores[asked, best].mean()),
        kept=float((same[0] == same[1]).mean()),
        moved=float((old != new).mean()),
        gained=float((scores[elsewhere, new] - scores[elsewhere, old]).mean()),
        examples=len(own) / int(pool.sum()),
        tokens=float(tokens[own].sum() / tokens[pool].sum()),
    )


def fitted(
    table: OutcomeTable, rows: Rows, kept: TraitSpace | None = None, known: Rows | None = None
) -> tuple[TraitSpace, RoutingProfile]:
    """Traits and profile of the outcomes of `rows`, or the profile with the traits `kept` of the rows `known`."""
    rows = rows[np.argsort(table.task[rows], kind="stable")]
    traits = kept or TraitSpace(n_permutations=100).fit(task_gains(table, rows))
    scores = traits.transform(task_gains(table, rows if known is None else known))
    requests = fit_requests(table, rows, table.strict[rows].astype(np.float64), range(len(table.adapters)))
    return traits, fit_profile(table.adapters, requests, scores, n_traits=traits.n_traits_)


def task_gains(table: OutcomeTable, rows: Rows) -> Array:
    """Mean gains (adapters, tasks) over the tasks of `rows`, in their order."""
    task = table.task[rows]
    gains = table.strict[rows].astype(np.float64)
    gains = gains[:, 1:] - gains[:, :1]
    return np.array([gains[task == t].mean(axis=0) for t in np.unique(task)]).T


def choose(profile: RoutingProfile, table: OutcomeTable, rows: Rows) -> Rows:
    """The column of the table that each request is routed to, 0 for base."""
    return 1 + Router(profile).choose(table.marks[rows].tolist()).chosen


def summary(columns: Sequence[Column]) -> Mapping[str, Any]:
    """Means over the data sets, and scores as shares of what the best adapter of each has."""
    means = {name: float(np.mean([getattr(c, name) for c in columns])) for name in asdict(columns[0]) if name != "name"}
    return means | {f"{n}_of_best": means[n] / means["best"] for n in ("base", "before", "after")}


def report(columns: Sequence[Column], console: Console) -> None:
    """Print a line a data set, and the means."""
    table = Table()
    names = [name for name in asdict(columns[0]) if name != "name"]
    table.add_column("data set")
    for name in names:
        table.add_column(name, justify="right")
    for c in columns:
        table.add_row(c.name, *(f"{getattr(c, name):.3f}" for name in names))
    table.add_section()
    means = summary(columns)
    table.add_row("mean", *(f"{means[name]:.3f}" for name in names))
    console.print(table)
    of_best = ", ".join(f"{n} {100 * means[f'{n}_of_best']:.1f}%" for n in ("base", "before", "after"))
    console.print(f"of the best adapter of each data set: {of_best}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="What does one more task bring, and change?")
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cases", type=int, help="only so many data sets, to see that it runs")
    given = parser.parse_args()
    start = time.perf_counter()
    table = design_table(given.outcomes)
    names = list(dict.fromkeys(table.dataset[table.kind == "main"].tolist()))
    columns = [column(table, name) for name in track(names[: given.cases], "data sets")]
    report(columns, Console(width=150))
    print(f"{time.perf_counter() - start:.0f} s")
    if given.json:
        found = {"columns": [asdict(c) for c in columns], "summary": summary(columns)}
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
