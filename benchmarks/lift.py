"""Do the intervals of `traitroute lift` hold when somebody looks every hour, and how wide are they? Simulated months.

    python benchmarks/lift.py                       the tables, five minutes of one core to itself
    python benchmarks/lift.py --json OUT            and the figures
    python benchmarks/lift.py --fill month.db       a new registry with a month of decisions and feedback, to look at

A month is some thousand conversations, more by day than by night, of which a share is held back. Each has one or more
rewards, mostly alike, which come some time after the answer, as 0 or 1, or on a scale of their own. They pass through
the product's own functions: they are joined, weighted and compared as `lift` does it. Each interval is then read at
every hour of the month. It covers where it never misses the gain over the conversations so far: the mean over these
requests of what auto would get, less what base would.

The worlds differ in what could break an interval: base that is nearly always right, an adapter that decays, a small
control group, a profile that knows nothing. The requests of the first, and what adapters and base answer to them, are
the measured ones of `routing/smollm2.safetensors`, with a profile that was fitted on other rows.

Beside ours: the usual interval of the same values, read every hour or only once; the asymptotic confidence sequence
(Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2024); hedged betting and its closed form, the predictable plug-in
(Waudby-Smith and Ramdas, 2024), both made for expectations that do not move. Betting is solved on a grid, so it is read
once a day, in fewer months.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from lift.filling import fill
from lift.intervals import ALPHA, Bounds, asymptotic, betting, ours, plug_in, usual
from lift.worlds import DAYS, WORLDS, Month, World, simulate
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from traitroute.serving.lift.sequence import Values

Array = NDArray[np.float64]
Looks = NDArray[np.intp]

HOURS = np.arange(1, DAYS * 24 + 1) * 3600.0
WIDTHS = (1, 7, 30)
"""Days after which half the width is shown."""
console = Console(width=150)


@dataclass(frozen=True)
class Way:
    """An estimate, an interval, and how often it is read: `every` so many hours, or only when the month ends."""

    estimate: str
    name: str
    bounds: Callable[[Values, Looks], Bounds]
    every: int = 1
    once: bool = False
    months: float = 1.0


ROBUST, WEIGHTED = "doubly robust", "inverse propensity"
WAYS = (
    Way(ROBUST, "ours", ours),
    Way(WEIGHTED, "ours", ours),
    Way(ROBUST, "asymptotic sequence", asymptotic, months=0.2),
    Way(ROBUST, "predictable plug-in", plug_in, months=0.2),
    Way(ROBUST, "betting, daily, 1 month in 50", betting, every=24, months=0.02),
    Way(ROBUST, "usual, looked at hourly", usual, months=0.2),
    Way(ROBUST, "usual, looked at once", usual, once=True, months=0.2),
)


@dataclass(frozen=True)
class Found:
    """Of `months` of a world, the share in which an interval never missed; half its width in score points on days."""

    world: str
    gain: float
    estimate: str
    interval: str
    months: int
    coverage: float
    half_widths: tuple[float, ...]


def months(world: World, count: int) -> Iterator[tuple[Month, dict[str, Values], Looks, Array]]:
    """Months with the values of both estimates, how many were known at each hour, and the truth after each."""
    for seed in range(count):
        month = simulate(world, seed)
        talks = month.conversations
        values = {ROBUST: talks.doubly_robust(), WEIGHTED: talks.inverse_propensity()}
        # Before anybody was held back there is no interval.
        looks = np.maximum(np.searchsorted(talks.known, HOURS, side="right"), np.flatnonzero(talks.control)[0] + 1)
        yield month, values, looks, month.gains.cumsum() / np.arange(1, len(talks) + 1)


def judged(name: str, world: World, count: int) -> list[Found]:
    """Every way in months of a world."""
    missed, halves, of = [0] * len(WAYS), [[] for _ in WAYS], [max(round(count * way.months), 1) for way in WAYS]
    gains = []
    for seed, (month, values, looks, truth) in enumerate(months(world, count)):
        gains.append(month.gains.mean())
        for i, way in enumerate(WAYS):
            if way.bounds is ours:
                # The same as finding both ends at each look, in a tenth of the time.
                sums = values[way.estimate].sums(looks)
                missed[i] += bool(sums.misses(truth[looks - 1], ALPHA).any())
                at = sums[[24 * day - 1 for day in WIDTHS]]
                halves[i].append((np.minimum(at.high(ALPHA / 2), 1) - np.maximum(at.low(ALPHA / 2), -1)) / 2)
            elif seed < of[i]:
                bounds = way.bounds(values[way.estimate], looks[way.every - 1 :: way.every])
                read = truth[looks[way.every - 1 :: way.every] - 1]
                wrong = (bounds.low > read) | (bounds.high < read)
                missed[i] += bool(wrong[-1] if way.once else wrong.any())
                halves[i].append(((bounds.high - bounds.low) / 2)[[24 * day // way.every - 1 for day in WIDTHS]])
    gain = float(np.mean(gains))
    return [
        Found(name, gain, way.estimate, way.name, of[i], 1 - missed[i] / of[i], tuple(np.mean(halves[i], axis=0)))
        for i, way in enumerate(WAYS)
    ]


def shown(found: list[Found]) -> Table:
    """One line a way."""
    world, gain = found[0].world, found[0].gain
    table = Table("estimate", "interval", title=f"{world}: a gain of {gain:+.3f}", title_justify="left")
    for column in ("months", "covers, %", *(f"± on day {day}" for day in WIDTHS)):
        table.add_column(column, justify="right")
    for f in found:
        widths = (f"{half:.3f}" for half in f.half_widths)
        table.add_row(f.estimate, f.interval, str(f.months), f"{100 * f.coverage:.1f}", *widths)
    return table


def main() -> None:
    """Simulate, print the tables, and write the figures where asked; or fill a registry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--months", type=int, default=1000, help="months of each world (fewer: only to see that it runs)"
    )
    parser.add_argument("--worlds", default="", help="only worlds whose name contains this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--fill", type=Path, metavar="REGISTRY", help="instead: write a month into a new registry")
    parser.add_argument("--holdback", type=float, default=0.05, help="with --fill: the share that is held back")
    parser.add_argument("--conversations", type=int, default=6000, help="with --fill: how many there are in a month")
    arguments = parser.parse_args()
    if arguments.fill:
        console.print(fill(arguments.fill, arguments.conversations, arguments.holdback), highlight=False)
        return
    found: list[Found] = []
    for name, world in WORLDS.items():
        if arguments.worlds in name:
            rows = judged(name, world, arguments.months)
            console.print(shown(rows))
            found += rows
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
