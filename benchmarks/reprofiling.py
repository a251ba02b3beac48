"""How few examples place a new adapter? A tenth of its row, and hardly a routing decision changes.

    python benchmarks/reprofiling.py --json out.json

An adapter at a time is left out of the committed outcomes (`routing/smollm2.safetensors`, groups to design on); traits
and router are fitted on the others, and the ways of `reprofiling/ways.py` choose examples and estimate its row.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from reprofiling.judging import RowScore, judge
from reprofiling.left_out import LeftOut, left_out
from reprofiling.ways import WAYS, Way, whole_row_again
from rich.console import Console
from rich.table import Table
from routing.table import SMOLLM2
from routing.trials import design_table
from traitroute.profiling.matrix.anchors import TOLERANCE

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
SEEDS = 5
"""Runs of a way that leaves something to chance."""
DRAWS = 2000
AGAIN = "(the whole row, measured anew)"
STOPPED = "stopped"


def interval(cases: Sequence[Sequence[RowScore]]) -> dict[str, Any]:
    """Means of a figure over adapters and seeds, with the 95% interval of a bootstrap over adapters, and the worst
    adapter.
    """
    rows = np.array([np.mean([list(asdict(f).values()) for f in each], axis=0) for each in cases])
    draws = np.random.default_rng(0).integers(0, len(rows), (DRAWS, len(rows)))
    low, high = np.quantile(rows[draws].mean(axis=1), [0.025, 0.975], axis=0)
    names = list(asdict(cases[0][0]))
    figures: dict[str, Any] = {
        n: {"mean": float(m), "ci": [float(a), float(b)]}
        for n, m, a, b in zip(names, rows.mean(axis=0), low, high, strict=True)
    }
    figures["worst_adapter_unchanged"] = float(rows[:, names.index("unchanged")].min())
    return figures


def curve(cases: Sequence[LeftOut], way: Way, shares: Sequence[float]) -> dict[str, Any]:
    """The figures of a way at each share."""
    seeds = range(SEEDS if way.by_chance else 1)
    return {f"{share:g}": interval([[judge(case, way, share, s) for s in seeds] for case in cases]) for share in shares}


def report(curves: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print a table a share."""
    shares = dict.fromkeys(s for way in curves.values() for s in way)
    for share in shares:
        title = share if share in (STOPPED, AGAIN) else f"{float(share):.0%} of the examples"
        table = Table(title=title, title_justify="left")
        for column in ("way", "examples", "tokens", "gains, points", "traits"):
            table.add_column(column, justify="left" if column == "way" else "right")
        for column in ("decisions unchanged", "worst adapter", "around it", "score lost", "covered"):
            table.add_column(column, justify="right")
        for name, way in curves.items():
            if share in way:
                table.add_row(name, *_cells(way[share]))
        console.print(table)


def _cells(found: Mapping[str, Any]) -> list[str]:
    def percent(name: str) -> str:
        return f"{100 * found[name]['mean']:.1f}"

    def ranged(name: str, form: str, factor: float = 1.0) -> str:
        mean, (low, high) = found[name]["mean"], found[name]["ci"]
        return f"{factor * mean:{form}} [{factor * low:{form}}, {factor * high:{form}}]"

    return [
        percent("examples"),
        percent("tokens"),
        ranged("gains", ".1f"),
        ranged("traits", ".2f"),
        ranged("unchanged", ".1f", 100),
        f"{100 * found['worst_adapter_unchanged']:.1f}",
        percent("around"),
        ranged("lost", ".2f"),
        percent("covered"),
    ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="How few examples place a new adapter?")
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cases", type=int, help="only so many adapters left out, to see that it runs")
    parser.add_argument("--only", default="", help="ways, comma-separated, by the start of their names")
    parser.add_argument("--score", choices=["strict", "lenient"], default="strict")
    given = parser.parse_args()
    start = time.perf_counter()
    table = design_table(given.outcomes)
    cases = [left_out(table, a, given.score) for a in range(len(table.adapters))[: given.cases]]
    wanted = tuple(name.strip() for name in given.only.split(",") if name.strip())
    curves: dict[str, Any] = {}
    for name, way in WAYS.items():
        if not wanted or name.startswith(wanted):
            curves[name] = curve(cases, way, SHARES)
            if way.stops:
                stopping = way.until(TOLERANCE)
                curves[name][STOPPED] = curve(cases, stopping, [1.0])["1"]
    curves[AGAIN] = {AGAIN: curve(cases, whole_row_again, [1.0])["1"]}
    report(curves, Console(width=170))
    print(f"{len(cases)} adapters, {cases[0].size} examples a row, {time.perf_counter() - start:.0f} s")
    if given.json:
        given.json.write_text(json.dumps({"score": given.score, "curve": curves}, indent=1))


if __name__ == "__main__":
    main()
