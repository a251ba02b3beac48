"""Does a small base help to choose adapters on a larger one? On two tables of outcomes, as `traitroute compare` asks.

    python benchmarks/twins.py SMALL.safetensors LARGE.safetensors --json OUT
    python benchmarks/twins.py TABLE.safetensors      how well a base ranks its own adapters again, on other rows

Both tables are of `benchmarks/outcomes.py`, by plans that ask the same and train on the same data sets:

    python benchmarks/outcomes.py --data DATA --data PROMPTS --plan benchmarks/routing/measure_qwen.yaml --work W1 --out LARGE.safetensors
    python benchmarks/outcomes.py --data DATA --data PROMPTS --plan benchmarks/routing/measure_twin.yaml --work W2 --out SMALL.safetensors

Compared are the adapters of one name that were trained on the same data sets, on the requests that both answered, of
the groups to design on and without an agent's frame. Last it chooses some of the adapters on the small base, as
`traitroute profile --scout` does, and says how much of what all can do on the large one these keep. Half a minute on
one core.
"""  # noqa: E501

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from routing.ours import rows_of
from routing.table import OutcomeTable
from routing.trials import SCORES, design_table, scores_of
from traitroute.cli.compare import decision_sentence, ranking_sentence, worth_table
from traitroute.profiling.scout import choose, reached
from traitroute.profiling.twins import WAYS, Twins, compare_routing, rank_pairs
from traitroute.router.folds import task_means

DRAWS = 1000


def line_up(small: OutcomeTable, large: OutcomeTable, score: str) -> Twins:
    """The requests and adapters that two tables have in common; the program's end where these are too few."""
    homes = dict(zip(small.adapters, small.homes, strict=True))
    shared = [name for name in large.adapters if name in homes]
    adapters = [n for n in shared if set(homes[n]) == set(large.homes[large.adapters.index(n)])]
    rows = {_key(small, i): i for i in np.flatnonzero(small.kind == "main")}
    pairs = [(rows[key], i) for i in np.flatnonzero(large.kind == "main") if (key := _key(large, i)) in rows]
    if len(adapters) < 2 or not pairs:
        raise SystemExit(
            f"{len(adapters)} adapters of the same data sets and {len(pairs)} requests are in both tables: measure "
            "both by plans that train and ask the same"
        )
    first, second = np.array(pairs).T
    return _twins(small, large, adapters, (first, second), score, [name for name in shared if name not in adapters])


def halves(table: OutcomeTable, score: str) -> Twins:
    """A table beside itself: half of each task's rows stand for A, the others for B."""
    rows = np.random.default_rng(0).permutation(np.flatnonzero(table.kind == "main"))
    order = rows[np.argsort(table.task[rows], kind="stable")]
    sides = []
    for task in np.unique(table.task[rows]):
        of = order[table.task[order] == task]
        sides.append((of[: len(of) // 2], of[len(of) // 2 : 2 * (len(of) // 2)]))
    first, second = (np.concatenate(side) for side in zip(*sides, strict=True))
    return _twins(table, table, list(table.adapters), (first, second), score)


def _twins(
    small: OutcomeTable,
    large: OutcomeTable,
    adapters: Sequence[str],
    rows: tuple[np.ndarray, np.ndarray],
    score: str,
    other_training: Sequence[str] = (),
) -> Twins:
    first, second = rows
    tasks, task = np.unique(large.task[second], return_inverse=True)
    return Twins(
        adapters=tuple(adapters),
        tasks=tuple(large.tasks[i] for i in tasks),
        texts=large.marks[second].tolist(),
        task=task,
        group=np.unique(large.group[second], return_inverse=True)[1],
        small=_scores(small, adapters, score)[first],
        large=_scores(large, adapters, score)[second],
        sources=[rows_of(large, large.adapters.index(name)) for name in adapters],
        other_training=tuple(other_training),
    )


def _key(table: OutcomeTable, request: int) -> tuple[str, bytes]:
    return table.tasks[table.task[request]], table.digest[request].tobytes()


def _scores(table: OutcomeTable, adapters: Sequence[str], score: str) -> np.ndarray:
    return scores_of(table, score)[:, [0, *(1 + table.adapters.index(name) for name in adapters)]]


def scouting_table(twins: Twins, seed: int = 0) -> Table:
    """What adapters chosen on the small base bring on the large one, of what all bring: with a 95% interval over tasks,
    beside as many chosen on the large one, and at random (mean, and the middle 90%)."""
    draw, count, tasks = np.random.default_rng(seed), len(twins.adapters), len(twins.tasks)
    small, large = (task_means(scores, twins.task).T for scores in (twins.small, twins.large))

    def brought(kept: Sequence[int], of: np.ndarray) -> float:
        base, adapters = large[0, of], large[1:, of]
        gains = [reached(base, rows) - base.mean() for rows in (adapters[list(kept)], adapters)]
        return gains[0] / gains[1]

    every = np.arange(tasks)
    table = Table("kept", "chosen on A", "95%", "chosen on B", "at random", "90% of these", "the last by A")
    for k in range(2, count):
        by_small, by_large = (choose(scores[0], scores[1:], k) for scores in (small, large))
        again = [brought(by_small, draw.integers(tasks, size=tasks)) for _ in range(DRAWS)]
        chance = [brought(draw.permutation(count)[:k].tolist(), every) for _ in range(DRAWS)]
        table.add_row(
            str(k),
            f"{brought(by_small, every):.0%}",
            "{:.0%} to {:.0%}".format(*np.quantile(again, (0.025, 0.975))),
            f"{brought(by_large, every):.0%}",
            f"{np.mean(chance):.0%}",
            "{:.0%} to {:.0%}".format(*np.quantile(chance, (0.05, 0.95))),
            twins.adapters[by_small[-1]],
        )
    return table


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Does a small base help to choose adapters on a larger one?")
    parser.add_argument("small", type=Path)
    parser.add_argument("large", type=Path, nargs="?", help="without it the first is set beside itself, on other rows")
    parser.add_argument("--score", choices=SCORES, default="strict")
    parser.add_argument("--ranking-only", action="store_true", help="fit no router")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    console, small = Console(width=150), design_table(given.small)
    if given.large is None:
        twins = halves(small, given.score)
        console.print(f"A: {small.source}, B: the same on other rows; adapters: {', '.join(twins.adapters)}")
    else:
        large = design_table(given.large)
        twins = line_up(small, large, given.score)
        console.print(f"A: {small.source}, B: {large.source}; adapters: {', '.join(twins.adapters)}")
    console.print(f"{len(twins.tasks)} tasks, {len(twins.texts)} requests, {given.score} score")
    if twins.other_training:
        console.print(f"left out, since trained on other data sets: {', '.join(twins.other_training)}")
    ranking = rank_pairs(twins)
    console.print(ranking_sentence(ranking))
    alone = given.ranking_only or given.large is None
    routing = [] if alone else [compare_routing(twins, way) for way in WAYS]
    for each in routing:
        console.print(worth_table(each))
        console.print(decision_sentence(each))
    if given.large is not None:
        console.print("what some of the adapters bring on B, of what all bring")
        console.print(scouting_table(twins))
    if given.json:
        given.json.write_text(
            json.dumps({"ranking": asdict(ranking), "routing": [asdict(r) for r in routing]}, indent=1)
        )


if __name__ == "__main__":
    main()
