"""What feedback is worth when an adapter drifts, and what it can do when it lies: a simulation on measured outcomes.

    python benchmarks/recalibration.py                 the tables, some three minutes of one core
    python benchmarks/recalibration.py --json OUT      and the figures

Requests, and what every adapter and base answer to them, are the measured ones of `routing/outcomes.safetensors`; the
router is fitted on four fifths of each task and meets the rest. A day is `DAY` requests drawn from those; one in `TOLD`
is rewarded with whether the answer was right. At the end of each day corrections are learnt from the last `WINDOW`
days, as `traitroute recalibrate --apply` does. On day `DRIFT` the adapter with the most right answers loses some of its
right answers, as it would after a bad update behind its name. The profile is never measured anew: that is what would
mend this for good.

A liar rewards that adapter with 0 whatever it answers (or base with 1, which harms all adapters at once).
In the last table one API key of several lies so of all that it tells, and besides tells FLOOD outcomes a day of
decisions that it asked for to that end; corrections are learnt from all outcomes alike, as before keys were told apart,
and weighted per key.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from routing.ours import OurRouter
from routing.protocols import in_distribution
from routing.seen import see
from routing.table import OUTCOMES, load
from traitroute.router import RequestTokens, Router
from traitroute.serving.skills.recalibration import TOLERANCE, Rewarded, corrections

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

DAY, TOLD, WINDOW = 1_000, 5, 10
DAYS, DRIFT = 20, 5
BOUNDS = (0.1, 0.2, 0.4)
LOSSES = (0.0, 0.1, 0.2, 0.4)
SEEDS = 20
KEYS, FLOOD = (1, 2, 3, 5, 10), 1_000
console = Console(width=150)


@dataclass(frozen=True)
class World:
    """n requests: predicted `gains` (n, a) and their `reach` (n,), the `level` of base (n,), and whether answers are
    right (n, 1 + a).
    """

    adapters: tuple[str, ...]
    gains: Array
    reach: Array
    level: Array
    right: Array
    router: Router
    marks: Sequence[RequestTokens]
    tolerance: float = TOLERANCE
    seeds: int = SEEDS

    @classmethod
    def measured(cls, file: Path) -> "World":
        """Fit the router, and read off what it predicts of the requests it was not fitted on."""
        table = load(file).complete()
        fold = in_distribution(table)[0]
        seen, asked = see(table, table.strict.astype(np.float64), fold)
        router = OurRouter().fit(seen).router
        base = dict(zip(seen.task_names, seen.task_means(seen.scores)[:, 0], strict=True))
        decisions = [router.route(m, ranked=len(table.adapters)) for m in asked.marks]
        places = {name: i for i, name in enumerate(table.adapters)}
        gains = np.array([[g for _, g in sorted((places[a.adapter], a.gain) for a in d.ranking)] for d in decisions])
        return cls(
            adapters=table.adapters,
            gains=gains,
            reach=np.array([d.ranking[-1].high - d.ranking[-1].gain for d in decisions]),
            level=np.array([base[d.nearest_tasks[0].task] for d in decisions]),
            right=table.strict[fold.test].astype(np.float64),
            router=router,
            marks=asked.marks.tolist(),
        )

    def chosen(self, learnt: Array) -> Rows:
        """The column chosen for each request under corrections (a,), as `Router` chooses."""
        corrected = self.gains + learnt
        best = corrected.argmax(axis=1)
        return np.where(corrected.max(axis=1) - self.reach > 0, 1 + best, 0)

    def check(self, learnt: Array) -> None:
        """Assert that `chosen` is what the router itself does with these corrections."""
        kept = dict(zip(self.adapters, learnt.tolist(), strict=True))
        router = Router(replace(self.router.profile, corrections=kept))
        names = [router.route(marks).adapter for marks in self.marks]
        columns = [0 if name is None else 1 + self.adapters.index(name) for name in names]
        assert columns == self.chosen(learnt).tolist(), "the simulation chooses otherwise"


@dataclass(frozen=True)
class Life:
    """A run of days: `reward` (days,) is the share of right answers, `learnt` (days, a) the corrections in force."""

    reward: Array
    learnt: Array


@dataclass(frozen=True)
class Flood:
    """One of `keys` API keys tells `reward` of all decisions for column `target`, and FLOOD more of them a day.

    Unless `weighted`, nobody tells keys apart.
    """

    keys: int
    target: int
    reward: float
    weighted: bool


Lie = Callable[[Rows, Array, np.random.Generator], Array]
"""Rewards as told, of who answered and the true rewards."""


def honest(chosen: Rows, rewards: Array, rng: np.random.Generator) -> Array:
    """Tell what was."""
    return rewards


def live(
    world: World,
    right: Array,
    *,
    bound: float | None,
    seed: int,
    lie: Lie = honest,
    known: Array | None = None,
    flood: Flood | None = None,
) -> Life:
    """Days of traffic; outcomes are `right` (n, 1 + a) from day DRIFT on. `known` corrections stand in for learning."""
    rng, keyed = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    learnt, told = np.zeros(len(world.adapters)), []
    reward, history = np.empty(DAYS), np.empty((DAYS, len(world.adapters)))
    for day in range(DAYS):
        outcomes = right if day >= DRIFT else world.right
        if known is not None and day >= DRIFT:
            learnt = known
        asked = rng.integers(len(world.gains), size=DAY)
        chosen = world.chosen(learnt)[asked]
        got = outcomes[asked, chosen]
        reward[day], history[day] = got.mean(), learnt
        heard = rng.random(DAY) < 1 / TOLD
        rewards = lie(chosen, got, rng)
        day_told = Told(asked[heard], chosen[heard], rewards[heard])
        told.append(_rewarded(world, _flooded(world, day_told, learnt, flood, keyed)))
        if bound is not None:
            learnt = _learn(world, [r for each in told[-WINDOW:] for r in each], bound)
    return Life(reward, history)


@dataclass(frozen=True)
class Told:
    """Outcomes reported: requests, the columns that answered, rewards, and by which key (None: any), all (m,)."""

    asked: Rows
    chosen: Rows
    rewards: Array
    keys: Rows | None = None


def _flooded(world: World, told: Told, learnt: Array, flood: Flood | None, rng: np.random.Generator) -> Told:
    """What is told when one key, the first, lies and tells more than the others."""
    if flood is None:
        return told
    keys = rng.integers(flood.keys, size=len(told.asked))
    lies = (keys == 0) & (told.chosen == flood.target)
    rows = np.flatnonzero(world.chosen(learnt) == flood.target)
    more = rng.choice(rows, size=FLOOD) if len(rows) else rows
    return Told(
        asked=np.concatenate([told.asked, more]),
        chosen=np.concatenate([told.chosen, np.full(len(more), flood.target)]),
        rewards=np.concatenate([np.where(lies, flood.reward, told.rewards), np.full(len(more), flood.reward)]),
        keys=np.concatenate([keys, np.zeros(len(more), np.intp)]) if flood.weighted else None,
    )


def _rewarded(world: World, told: Told) -> list[Rewarded]:
    found = []
    keys = told.keys if told.keys is not None else np.zeros(len(told.asked), np.intp)
    for row, column, reward, key in zip(told.asked, told.chosen, told.rewards, keys, strict=True):
        gain = world.gains[row, column - 1] if column else 0.0
        adapter = world.adapters[column - 1] if column else None
        found.append(Rewarded(adapter, float(world.level[row] + gain), float(reward), str(key)))
    return found


def _learn(world: World, rewarded: Sequence[Rewarded], bound: float) -> Array:
    learnt = {each.adapter: each.correction for each in corrections(rewarded, bound=bound, tolerance=world.tolerance)}
    return np.array([learnt.get(name, 0.0) for name in world.adapters])


def drifted(world: World, adapter: int, loss: float) -> Array:
    """Outcomes after `adapter` lost so much of its score where it is chosen, by right answers gone wrong at random."""
    right = world.right.copy()
    there = right[world.chosen(np.zeros(len(world.adapters))) == 1 + adapter, 1 + adapter]
    gone = np.random.default_rng(0).random(len(right)) < loss / there.mean()
    right[gone, 1 + adapter] = 0.0
    return right


def liar(target: int, lie: float, share: float) -> Lie:
    """Of the feedback on column `target`, `share` tells `lie` whatever was."""

    def told(chosen: Rows, rewards: Array, rng: np.random.Generator) -> Array:
        lies = (chosen == target) & (rng.random(len(chosen)) < share)
        return np.where(lies, lie, rewards)

    return told


@dataclass(frozen=True)
class Found:
    """Shares of right answers before the drift, in the five days after, and from then on, and what was learnt at the
    end.

    `better` is the last share less that without recalibration, over the same traffic, `error` its standard error.
    """

    case: str
    bound: str
    before: float
    soon: float
    later: float
    better: float
    error: float
    correction: float
    most: float


def found(case: str, bound: str, lives: Sequence[Life], plain: Sequence[Life], target: int) -> Found:
    """Sum up the lives of one case; `plain` are those without recalibration."""
    rewards = np.array([life.reward for life in lives])
    late = rewards[:, 2 * DRIFT :].mean(axis=1)
    better = late - np.array([life.reward[2 * DRIFT :].mean() for life in plain])
    learnt = np.array([life.learnt for life in lives])
    return Found(
        case=case,
        bound=bound,
        before=float(rewards[:, :DRIFT].mean()),
        soon=float(rewards[:, DRIFT : 2 * DRIFT].mean()),
        later=float(late.mean()),
        better=float(better.mean()),
        error=float(better.std(ddof=1) / np.sqrt(len(better))),
        correction=float(learnt[:, -1, target].mean()),
        most=float(np.abs(learnt).max()),
    )


def drifts(world: World, target: int) -> list[Found]:
    """Drift of adapter `target`: without feedback, with it at each bound, and with the drift known."""
    rows = []
    for loss in LOSSES:
        right, case = drifted(world, target, loss), f"its gain falls by {loss:g}"
        plain = [live(world, right, bound=None, seed=seed) for seed in range(world.seeds)]
        rows.append(found(case, "none", plain, plain, target))
        for bound in BOUNDS:
            lives = [live(world, right, bound=bound, seed=seed) for seed in range(world.seeds)]
            rows.append(found(case, f"{bound:g}", lives, plain, target))
        known = np.where(np.arange(len(world.adapters)) == target, -loss, 0.0)
        lives = [live(world, right, bound=None, seed=s, known=known) for s in range(world.seeds)]
        rows.append(found(case, "the drift is known", lives, plain, target))
    return rows


def lies(world: World, target: int) -> list[Found]:
    """Lies about adapter `target`, or about base, without any drift."""
    rows = []
    plain = [live(world, world.right, bound=None, seed=seed) for seed in range(world.seeds)]
    for share in (0.3, 1.0):
        for name, lie in (
            (f"0 told of {share:.0%} of its decisions", liar(1 + target, 0.0, share)),
            (f"1 told of {share:.0%} of its decisions", liar(1 + target, 1.0, share)),
            (f"1 told of {share:.0%} of base's", liar(0, 1.0, share)),
        ):
            for bound in BOUNDS:
                lives = [live(world, world.right, bound=bound, seed=s, lie=lie) for s in range(world.seeds)]
                rows.append(found(name, f"{bound:g}", lives, plain, target))
    return rows


def floods(world: World, target: int) -> list[Found]:
    """One key's lies and flood about adapter `target`, or about base, without any drift."""
    rows = []
    plain = [live(world, world.right, bound=None, seed=seed) for seed in range(world.seeds)]
    for name, column, reward in (
        ("0 told of it", 1 + target, 0.0),
        ("1 told of it", 1 + target, 1.0),
        ("1 told of base", 0, 1.0),
    ):
        for keys in KEYS:
            for weighted in (False, True):
                flood = Flood(keys, column, reward, weighted)
                case = f"{name} by 1 of {keys} keys, {'weighted per key' if weighted else 'all alike'}"
                for bound in (BOUNDS[0], BOUNDS[-1]):
                    lives = [
                        live(world, world.right, bound=bound, seed=seed, flood=flood) for seed in range(world.seeds)
                    ]
                    rows.append(found(case, f"{bound:g}", lives, plain, target))
    return rows


def shown(title: str, rows: Sequence[Found]) -> Table:
    """One line a case and bound, in percent of right answers."""
    table = Table(title=title, title_justify="left")
    for column in (
        "case",
        "bound",
        f"days 1-{DRIFT}",
        f"days {DRIFT + 1}-{2 * DRIFT}",
        f"days {2 * DRIFT + 1}-{DAYS}",
        "better than none",
        "its correction",
        "largest of any",
    ):
        table.add_column(column)
    for r in rows:
        shares = (f"{100 * share:.1f}" for share in (r.before, r.soon, r.later))
        better = f"{100 * r.better:+.1f} ± {196 * r.error:.1f}"
        table.add_row(r.case, r.bound, *shares, better, f"{r.correction:+.2f}", f"{r.most:.2f}")
    return table


def main() -> None:
    """Simulate, print the tables, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=OUTCOMES)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each case (fewer: only to see that it runs)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    world = replace(World.measured(arguments.outcomes), tolerance=arguments.tolerance, seeds=arguments.seeds)
    world.check(np.linspace(-0.1, 0.1, len(world.adapters)))
    chosen = world.chosen(np.zeros(len(world.adapters)))
    columns = range(1, world.right.shape[1])
    target = max(columns, key=lambda c: world.right[chosen == c, c].sum()) - 1
    rows = {
        "drift": drifts(world, target),
        "lies": lies(world, target),
        "floods": floods(world, target),
    }
    about = f"{world.adapters[target]}, chosen for {np.mean(chosen == 1 + target):.0%} of requests"
    console.print(shown(f"% right answers when {about}, drifts", rows["drift"]))
    console.print(shown(f"% right answers when feedback on {about}, lies", rows["lies"]))
    console.print(shown(f"% right answers when one key floods {about}, with lies", rows["floods"]))
    if arguments.json:
        found_rows = {name: [asdict(row) for row in each] for name, each in rows.items()}
        arguments.json.write_text(json.dumps(found_rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
