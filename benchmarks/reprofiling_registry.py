"""What a part of the row would have said of each adapter that a registry has measured in full.

    python benchmarks/reprofiling_registry.py traitroute.db

An adapter at a time is taken for new: its row is estimated on anchors that the others choose, from its stored outcomes,
and compared with its whole row. Nothing is measured or written.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from traitroute.adapters import Registry
from traitroute.profiling.matrix.anchors import AnchorRow, rounds
from traitroute.profiling.matrix.profiled import Profiled

SHARES = (0.1, 0.2, 0.4, 0.6)
SEEDS = 20


def errors(profiled: Profiled, adapter: str, share: float) -> tuple[float, float, float, float]:
    """Share measured, error of gains in points of ours and of as many random examples, and the standard error ours
    states.
    """
    right = [profiled.outcomes(adapter, task).strict.astype(np.float64) for task in profiled.tasks]
    exact = np.array([r.mean() for r in right])
    row = AnchorRow(profiled.anchors(without=adapter))
    for upto in rounds(row.size, len(right), share):
        for task, places in row.next(int(upto) - row.done).items():
            row.add(task, places, right[task][places])
    found = row.estimate()
    rng = np.random.default_rng(0)
    each = max(1, round(row.done / len(right)))
    drawn = [[rng.choice(r, min(each, len(r)), replace=False).mean() for r in right] for _ in range(SEEDS)]
    ours, random = np.abs(found.scores - exact).mean(), np.abs(np.array(drawn) - exact).mean()
    return row.done / row.size, 100 * float(ours), 100 * float(random), 100 * found.error


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What a part of each row would have said.")
    parser.add_argument("registry", type=Path)
    given = parser.parse_args()
    with Registry.open(given.registry, read_only=True) as registry:
        profiled = Profiled.open(registry)
    table = Table(title=f"{len(profiled.whole)} adapters, {len(profiled.tasks)} tasks")
    for column in ("share", "error, points", "random examples", "stated standard error"):
        table.add_column(column, justify="right")
    for share in SHARES:
        means = np.mean([errors(profiled, a, share) for a in profiled.whole], axis=0)
        table.add_row(f"{means[0]:.0%}", *(f"{value:.1f}" for value in means[1:]))
    Console().print(table)


if __name__ == "__main__":
    main()
