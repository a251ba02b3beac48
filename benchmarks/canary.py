"""Does a canary let good adapters in and keep harmful ones out, how soon, and how often does it err? Simulated entries.

    python benchmarks/canary.py                     the table, a quarter of an hour of one core
    python benchmarks/canary.py --show              one adapter of each kind, step by step, in half a minute
    python benchmarks/canary.py --json OUT          and the figures

An adapter enters with 1% of the conversations it would win, and the product's own functions take its steps: every hour
they compare what was reported since its share was set, and promote it (10%, all) or roll it back. An entry ends when
one of both is final, or after 60 days. Each conversation has one or more rewards of 0 or 1, mostly alike, twenty
minutes after the answer on average; who would have answered otherwise is right in 60%.

The adapters differ in their true gain over the incumbent; some are good at first and fall, as when their users change.
False promotions are those to all of an adapter whose loss is above the margin of 5 points; false rollbacks are those of
one that is no worse. Each has a stated risk of 5% at most over both shares.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lift.entries import KINDS, Adapter, Ended, entry
from rich.console import Console
from rich.table import Table

console = Console(width=150)


@dataclass(frozen=True)
class Found:
    """What became of `entries` of a kind of adapter; days and conversations are medians (None: too few ended so)."""

    adapter: str
    daily: int
    entries: int
    promoted: float
    rolled_back: float
    days: float | None
    conversations: float | None
    given: float | None
    lost: float


def judged(name: str, adapter: Adapter, daily: int, count: int) -> Found:
    """Many entries of an adapter among so many conversations a day that it would win."""
    ended = [entry(adapter, daily, seed) for seed in range(count)]
    final = sorted((each for each in ended if each.how != "undecided"), key=lambda each: each.days)
    middle = final[len(final) // 2] if len(final) > count / 2 else None
    return Found(
        adapter=name,
        daily=daily,
        entries=count,
        promoted=sum(each.how == "promoted" for each in ended) / count,
        rolled_back=sum(each.how == "rolled back" for each in ended) / count,
        days=middle and middle.days,
        conversations=middle and middle.conversations,
        given=middle and middle.given,
        lost=sum(each.lost for each in ended) / count,
    )


def shown(found: list[Found]) -> Table:
    """One line a kind of adapter."""
    table = Table("adapter", title="entries of simulated adapters", title_justify="left")
    columns = (
        "a day",
        "entries",
        "to all, %",
        "rolled back, %",
        "not decided, %",
        "days",
        "conversations",
        "given",
        "lost",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for f in found:
        shares = (f"{100 * share:.1f}" for share in (f.promoted, f.rolled_back, max(1 - f.promoted - f.rolled_back, 0)))
        days = "–" if f.days is None else f"{f.days:.1f}"
        middle = ("–" if value is None else f"{value:,.0f}" for value in (f.conversations, f.given))
        table.add_row(f.adapter, f"{f.daily:,}", str(f.entries), *shares, days, *middle, f"{f.lost:,.0f}")
    return table


def show(name: str, ended: Ended) -> None:
    """One entry, step by step."""
    console.print(
        f"[bold]{name}[/]: {ended.how} after {ended.days:.1f} days, {ended.given:,} conversations given to it"
    )
    for step in ended.steps:
        estimate = step.estimate
        console.print(
            f"  day {step.day:5.1f}  at {step.share:.0%}: {step.verdict}, {estimate.gain:+.3f} [{estimate.low:+.3f}, "
            f"{estimate.high:+.3f}] of {step.conversations:,} conversations, {step.given:,} given",
            highlight=False,
        )


def main() -> None:
    """Simulate, print the table, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=200, help="of each kind (fewer: only to see that it runs)")
    parser.add_argument("--daily", default="500,5000", help="conversations a day that it would win, comma-separated")
    parser.add_argument("--adapters", default="", help="only those whose name contains this")
    parser.add_argument("--show", action="store_true", help="instead: one entry of each, step by step")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    kinds = {name: adapter for name, adapter in KINDS.items() if arguments.adapters in name}
    rates = [int(rate) for rate in arguments.daily.split(",")]
    if arguments.show:
        for name, adapter in kinds.items():
            show(name, entry(adapter, rates[-1], 0))
        return
    found = []
    for rate in rates:
        rows = [judged(name, adapter, rate, arguments.entries) for name, adapter in kinds.items()]
        console.print(shown(rows))
        found += rows
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
