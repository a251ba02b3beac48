"""What is feedback worth when adapters decay, kinds of request are new, or a key lies? On measured outcomes.

    python benchmarks/recalibration.py                     the tables, on the public prompts
    python benchmarks/recalibration.py --outcomes FILE     and on another table of outcomes
    python benchmarks/recalibration.py --json OUT          and the figures

The traffic are requests of the table's groups to design on, with what base and every adapter answered to each: those
that the router was not fitted on, and a third of the groups, of which it has seen nothing, as new kinds. A day is 1,000
requests, of which one in five is rewarded with whether the answer was right; each evening what is learnt from the last
ten days holds for the next. From day 6 on something changes (learning/days.py). Compared are ways of learning
(learning/policies.py); those that need base to compare with let it answer 5% of requests, and pay for it.

Regret is how many more answers in a hundred would have been right with the best adapter, or base, of each data set.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from learning.days import CHANGE, DAYS, SCENARIOS, Life, live
from learning.policies import POLICIES, Contextual
from learning.world import World
from rich.console import Console
from rich.table import Table
from routing.table import SMOLLM2

SEEDS = 5
BELOW = 0.02
"""A data set is harmed where routing scores so much less than base."""
PHASES = ((0, CHANGE), (CHANGE, 2 * CHANGE), (2 * CHANGE, DAYS))
console = Console(width=150)


@dataclass(frozen=True)
class Found:
    """`regret` in each phase and its standard `error` (points); data sets `below` base in the end, of how many, and the
    `worst` gain of one in any run."""

    scenario: str
    policy: str
    regret: tuple[float, ...]
    error: tuple[float, ...]
    below: float
    data_sets: int
    worst: float


def found(scenario: str, policy: str, lives: Sequence[Life]) -> Found:
    """Sum up the runs of one way of learning."""
    regret = 100 * np.array([[life.regret[a:b].mean() for a, b in PHASES] for life in lives])
    gains = np.array([life.gains for life in lives])
    error = regret.std(axis=0, ddof=1) / np.sqrt(len(lives)) if len(lives) > 1 else np.zeros(len(PHASES))
    below = float((gains < -BELOW).sum(axis=1).mean())
    means = tuple(regret.mean(axis=0).tolist())
    return Found(scenario, policy, means, tuple(error.tolist()), below, gains.shape[1], float(gains.min()))


def check(world: World, target: int) -> None:
    """Assert that the simulation chooses as the router does with corrections that were learnt."""
    policy = Contextual(world)
    live(world, SCENARIOS["an adapter loses half of its right answers"], policy, target=target, seed=0)
    assert policy.learnt is not None and policy.learnt.anywhere.any(), "nothing was learnt"
    world.check(policy.learnt)


def shown(rows: Sequence[Found]) -> Table:
    """One line a scenario and way of learning."""
    days = [f"days {a + 1}-{b}" for a, b in PHASES]
    table = Table("from day 6 on", "learning", *days, f"below base by {BELOW:g}", "worst")
    for i, row in enumerate(rows):
        regrets = (f"{mean:.1f} ± {1.96 * error:.1f}" for mean, error in zip(row.regret, row.error, strict=True))
        first = i == 0 or rows[i - 1].scenario != row.scenario
        below = f"{row.below:.1f} of {row.data_sets}"
        table.add_row(row.scenario if first else "", row.policy, *regrets, below, f"{row.worst:+.2f}")
    return table


def main() -> None:
    """Simulate, print the table, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2, help="an outcome table")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each case (fewer: only to see that it runs)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    world = World.measured(arguments.outcomes, new_kinds=True)
    known, chosen = ~world.novel, world.chosen(world.gains)
    right = [world.right[known & (chosen == 1 + a), 1 + a].sum() for a in range(len(world.adapters))]
    target = int(np.argmax(right))
    check(world, target)
    rows = [
        found(
            name,
            policy,
            [live(world, scenario, make(world), target=target, seed=seed) for seed in range(arguments.seeds)],
        )
        for name, scenario in SCENARIOS.items()
        for policy, make in POLICIES.items()
    ]
    share = np.mean(chosen[known] == 1 + target)
    console.print(
        f"{len(world.adapters)} adapters; {known.sum()} requests of profiled kinds, {world.novel.sum()} of new ones; "
        f"the adapter is {world.adapters[target]}, chosen for {share:.0%}; regret in points, ± 95%"
    )
    console.print(shown(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
