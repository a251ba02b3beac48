"""How few examples make a first profile? Ways to measure less of a matrix, and what routing loses by it.

    python benchmarks/first_profile.py --json out.json

From the committed outcomes (routing/smollm2.safetensors, groups to design on): a fifth of each task's rows is kept for
requests, and of the rest each way "measures" so much. Routers fitted to that are compared, on the rows kept, with the
router fitted to all of it. Every example of every cell counts, base's too. Ten minutes on one core.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from routing.ours import OurRouter
from routing.protocols import Fold
from routing.seen import see
from routing.table import SMOLLM2, OutcomeTable, chosen
from routing.trials import design_table, fold_list
from traitroute.profiling.matrix.anchors import AnchorRow, TaskAnchors, rounds

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Measured:
    """What a way measured: requests `rows` (n,) with `scores` (n, 1 + adapters), base's in front, and the share `cost`
    of all examples."""

    rows: Rows
    scores: Array
    cost: float


@dataclass(frozen=True)
class Pool:
    """Rows that may be measured: `scores` (n, 1 + adapters) with base in front, their `task` (n,), further `marks`."""

    rows: Rows
    scores: Array
    task: Rows
    marks: Array

    @classmethod
    def of(cls, table: OutcomeTable, rows: Rows, score: str) -> "Pool":
        _, task = np.unique(table.task[rows], return_inverse=True)
        return cls(
            rows,
            getattr(table, score)[rows].astype(np.float64),
            task,
            np.nan_to_num(table.likelihood[rows].astype(np.float64)),
        )

    @property
    def members(self) -> list[Rows]:
        """The rows of each task."""
        return [np.flatnonzero(self.task == t) for t in range(self.task.max() + 1)]


LEAST_ROWS = 8
INDIFFERENT = 0.03
"""A task is settled where no adapter can be better than the leading one by more than this."""

Way = Callable[[Pool, float, int], Measured]


def fewer_rows(pool: Pool, share: float, seed: int) -> Measured:
    """The same few rows of each task for every adapter."""
    rng = np.random.default_rng(seed)
    kept = np.concatenate([m[rng.permutation(len(m))[: max(2, round(share * len(m)))]] for m in pool.members])
    return Measured(pool.rows[kept], pool.scores[kept], len(kept) / len(pool.rows))


def anchored_rows(pool: Pool, share: float, seed: int) -> Measured:
    """Base and two adapters in full, the others on anchors, as `adapters measure` does."""
    columns = pool.scores.shape[1]
    order = 1 + np.random.default_rng(seed).permutation(columns - 1)
    whole = [0, *order[:2]]
    rest = max((share * columns - len(whole)) / (columns - len(whole)), 0.02)
    known = pool.scores.copy()
    cost = float(len(whole))
    anchors = [TaskAnchors.of(pool.scores[np.ix_(m, whole)], pool.marks[np.ix_(m, whole)]) for m in pool.members]
    for column in order[2:]:
        row = AnchorRow(anchors)
        for upto in rounds(row.size, len(anchors), rest):
            for task, places in row.next(max(int(upto) - row.done, 0)).items():
                row.add(task, places, pool.scores[pool.members[task][places], column])
        for members, examples in zip(pool.members, row.estimate().examples, strict=True):
            known[members, column] = examples
        cost += row.done / row.size
    return Measured(pool.rows, known, cost / columns)


def settled_rows(pool: Pool, share: float, seed: int) -> Measured:
    """The same rows for every adapter, a task's rows doubled until its best adapter is known; `share` begins."""
    rng = np.random.default_rng(seed)
    kept = []
    for members in pool.members:
        order = members[rng.permutation(len(members))]
        done = max(min(len(order), LEAST_ROWS), round(share * len(order)))
        while done < len(order) and not _settled(pool.scores[order[:done]]):
            done = min(2 * done, len(order))
        kept.append(order[:done])
    rows = np.concatenate(kept)
    return Measured(pool.rows[rows], pool.scores[rows], len(rows) / len(pool.rows))


def _settled(seen: Array) -> bool:
    """Whether no column can be better than the one that leads by more than `INDIFFERENT`, at one standard error."""
    lead = int(seen.mean(axis=0).argmax())
    gaps = seen - seen[:, [lead]]
    # One answer more is counted as differing, so that no few equal answers are taken for certainty.
    errors = np.sqrt((gaps.var(axis=0) + 1 / (len(seen) + 1)) / len(seen))
    errors[lead] = 0
    return bool((gaps.mean(axis=0) + errors).max() <= INDIFFERENT)


WAYS: Mapping[str, Way] = {"fewer rows": fewer_rows, "anchors": anchored_rows, "settled": settled_rows}
SHARES = (0.1, 0.2, 0.35, 0.5, 0.75)


@dataclass(frozen=True)
class Figures:
    """`cost` in examples; on requests kept, decisions `unchanged`, and `score` and `gain` over the whole profile's."""

    cost: float
    unchanged: float
    score: float
    gain: float


def choose(table: OutcomeTable, measured: Measured, test: Rows, *, random_state: int = 0) -> Rows:
    """The column chosen for each row of `test` by a router fitted to what was measured."""
    scores = np.zeros((len(table), 1 + len(table.adapters)))
    scores[measured.rows] = measured.scores
    seen, requests = see(table, scores, Fold(measured.rows, test))
    return OurRouter(random_state=random_state).fit(seen).choose(requests)


def _mean(scores: Array, columns: Rows) -> float:
    """The mean score of the columns chosen, one a row."""
    return float(scores[np.arange(len(columns)), columns].mean())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="How few examples make a first profile?")
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", default="", help="ways, comma-separated")
    parser.add_argument("--shares", default=",".join(map(str, SHARES)), help="shares of the examples, comma-separated")
    parser.add_argument("--score", choices=["strict", "lenient"], default="strict")
    given = parser.parse_args()
    start = time.perf_counter()
    table = design_table(given.outcomes)
    ways, shares = chosen(given.only, WAYS, "way"), [float(s) for s in given.shares.split(",")]
    found: dict[str, list[Figures]] = {}
    for seed, fold in enumerate(fold_list(table, "new_rows")[: given.folds]):
        pool = Pool.of(table, fold.fit, given.score)
        scores = getattr(table, given.score)[fold.test].astype(np.float64)
        whole = Measured(pool.rows, pool.scores, 1.0)
        wanted = choose(table, whole, fold.test)
        best, base = _mean(scores, wanted), float(scores[:, 0].mean())
        cases = {("whole, another seed", 1.0): whole}
        cases |= {(n, s): way(pool, s, seed) for n, way in ways.items() for s in shares}
        for (name, share), measured in cases.items():
            columns = choose(table, measured, fold.test, random_state=1 if measured is whole else 0)
            score = _mean(scores, columns)
            same = float((columns == wanted).mean())
            figures = Figures(measured.cost, same, score / best, (score - base) / (best - base))
            found.setdefault(f"{name} {share:g}", []).append(figures)
            print(f"fold {seed}, {name} {share:g}: {time.perf_counter() - start:.0f} s", flush=True)
    shown = Table(title="first profile", title_justify="left")
    for column in ("way", "examples", "decisions unchanged", "score", "gain recovered"):
        shown.add_column(column)
    for name, each in found.items():
        means = np.mean([list(asdict(f).values()) for f in each], axis=0)
        shown.add_row(name, *(f"{100 * m:.1f}" for m in means))
    Console(width=120).print(shown)
    if given.json:
        given.json.write_text(json.dumps({n: [asdict(f) for f in each] for n, each in found.items()}, indent=1))


if __name__ == "__main__":
    main()
