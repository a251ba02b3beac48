"""What it costs not to know what adapters were trained on, as with adapters that are brought from elsewhere.

    python benchmarks/missing_rows.py                                   8 draws each of 3, 6 and 12 data sets
    python benchmarks/missing_rows.py --sizes 6 --adapters 1,2 --draws 5
    python benchmarks/missing_rows.py --registries known.db foreign.db   profiles of your own, with the rows and without

From the committed outcomes (routing/smollm2.safetensors): some data sets are profiled on four fifths of their rows,
with some of the adapters, once with the adapters' training rows and once without. Then both profiles route the rows
left out, of the data sets profiled ("known") and of others ("new"). The other groups are halved: the prompts of one
half are among the tasks that ship with the router, the data sets of the other half are new. Shown is how many decisions
are equal, and the mean gain over base in points of strict score: with the rows, without, and of the best single adapter
in hindsight. Intervals are over draws. Of two registries the same is shown on the requests that they were measured on,
and how many decisions are equal on training rows of these tasks, where there are some, which they were not.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from routing.ours import fit_requests
from routing.table import SMOLLM2, OutcomeTable
from routing.trials import design_table
from traitroute.adapters import Registry, SuiteError
from traitroute.profiling import TraitSpace
from traitroute.profiling.matrix.profiled import Profiled
from traitroute.router import FitRequests, Router, fit_profile

SHARE = 0.8
ROUTED = 400
"""At most so many requests of either kind are routed in a draw."""
KINDS = ("known", "new")


@dataclass(frozen=True)
class Comparison:
    """One draw: the share of equal decisions, and the mean gains with the training rows, without, and of the best."""

    equal: float
    base: float
    given: float
    missing: float
    best: float


def main() -> None:
    """Draw, fit twice, route, print."""
    arguments = _arguments()
    if arguments.registries:
        compare_registries(*arguments.registries)
        return
    table = design_table(arguments.outcomes)
    shown = Table("adapters", "data sets", "requests", "equal", "to base", "with rows", "without", "best adapter")
    for adapters in map(int, arguments.adapters.split(",")):
        for size in map(int, arguments.sizes.split(",")):
            random = np.random.default_rng(0)
            draws = [compare(table, adapters, size, random) for _ in range(arguments.draws)]
            for kind in KINDS:
                if rows := [d[kind] for d in draws if kind in d]:
                    shown.add_row(str(adapters), str(size), kind, *_figures(rows))
    Console(width=120).print(shown)


def compare(table: OutcomeTable, adapters: int, size: int, random: np.random.Generator) -> dict[str, Comparison]:
    """Profile `size` data sets with some `adapters`, with their training rows and without, and route other rows."""
    kept = np.sort(random.choice(len(table.adapters), adapters, replace=False))
    main = np.unique(table.task[table.kind == "main"])
    profiled = random.choice(main, min(size, len(main)), replace=False)
    fitted_on = np.flatnonzero(np.isin(table.task, profiled) & (random.random(len(table)) < SHARE))
    apart = (table.kind == "main") & ~np.isin(table.row, table.row[fitted_on])
    groups = random.permutation(np.setdiff1d(table.groups, table.group[fitted_on]))
    asked = groups[len(groups) // 2 :]
    scores = table.strict.astype(np.float64)
    gains = scores[:, 1:][:, kept] - scores[:, :1]
    requests = fit_requests(table, fitted_on, scores[fitted_on], kept.tolist(), asked=asked)
    given, missing = (_router(table.task[fitted_on], each) for each in (requests, replace(requests, sources=None)))
    known, new = np.isin(table.task, profiled), np.isin(table.group, asked)
    tests = {
        kind: random.permutation(np.flatnonzero(apart & of))[:ROUTED]
        for kind, of in zip(KINDS, (known, new), strict=True)
    }
    return {kind: _compare(table, rows, gains, given, missing) for kind, rows in tests.items() if len(rows)}


def compare_registries(known: Path, missing: Path) -> None:
    """Route the requests of two profiles of the same adapters and tasks with both, and print what differs."""
    with Registry.open(known, read_only=True) as first, Registry.open(missing, read_only=True) as second:
        routers = [Router.from_registry(registry) for registry in (first, second)]
        profiled = Profiled.open(first)
    names = profiled.whole
    places = {None: 0} | {name: i + 1 for i, name in enumerate(names)}
    choices, gained, unseen = [], [], []
    for task in profiled.tasks:
        prompts = [e.prompt for e in task.test_examples]
        choices.append([[places[router.route(p).adapter] for router in routers] for p in prompts])
        scores = np.array([task.scores(profiled.outcomes(name, task)) for name in (None, *names)], float)
        gained.append((scores - scores[0]).T)
        try:
            more = [e.prompt for e in task.examples("train", 100)]
        except SuiteError:
            continue
        unseen += [[router.route(p).adapter for router in routers] for p in more]
    chosen, gains = np.concatenate(choices), np.concatenate(gained)
    reached = [float(gains[np.arange(len(gains)), chosen[:, i]].mean()) for i in (0, 1)]
    equal = float((chosen[:, 0] == chosen[:, 1]).mean())
    print(f"{len(gains)} measured requests: {equal:.0%} of decisions equal; to base {(chosen[:, 1] == 0).mean():.0%}")
    print(
        f"mean gain, points: with rows {100 * reached[0]:+.1f}, without {100 * reached[1]:+.1f}, best adapter "
        f"{100 * gains.mean(axis=0).max():+.1f}, best adapter of each request {100 * gains.max(axis=1).mean():+.1f}"
    )
    if unseen:
        share = float(np.mean([a == b for a, b in unseen]))
        print(f"{len(unseen)} requests that were not measured: {share:.0%} of decisions equal")


def _router(tasks: NDArray[np.int16], requests: FitRequests) -> Router:
    means = np.stack([requests.gains[tasks == t].mean(axis=0) for t in np.unique(tasks)], axis=1)
    traits = TraitSpace(n_permutations=50).fit(means)
    names = list(map(str, range(len(means))))
    return Router(fit_profile(names, requests, traits.transform(means), n_traits=traits.n_traits_))


def _compare(
    table: OutcomeTable, rows: NDArray[np.intp], gains: NDArray[np.float64], given: Router, missing: Router
) -> Comparison:
    padded = np.hstack([np.zeros((len(rows), 1)), gains[rows]])
    with_rows, without = (1 + router.choose(table.marks[rows].tolist()).chosen for router in (given, missing))
    reached = [float(padded[np.arange(len(rows)), each].mean()) for each in (with_rows, without)]
    best = max(0.0, float(padded.mean(axis=0).max()))
    given_gain, missing_gain = reached
    return Comparison(
        float((with_rows == without).mean()), float((without == 0).mean()), given_gain, missing_gain, best
    )


def _figures(rows: Sequence[Comparison]) -> Iterator[str]:
    for name, form in (("equal", "%"), ("base", "%"), ("given", "+"), ("missing", "+"), ("best", "+")):
        values = 100 * np.array([getattr(row, name) for row in rows])
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
        yield f"{values.mean():{'.0f' if form == '%' else '+.1f'}}{'%' if form == '%' else ''} ± {1.96 * error:.1f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2, help="the outcome table")
    parser.add_argument(
        "--registries", type=Path, nargs=2, metavar=("KNOWN", "MISSING"), help="registries with the rows and without"
    )
    parser.add_argument("--sizes", default="3,6,12", help="numbers of data sets profiled")
    parser.add_argument("--adapters", default="1,2,6", help="numbers of adapters")
    parser.add_argument("--draws", type=int, default=8, help="draws each")
    return parser.parse_args()


if __name__ == "__main__":
    main()
