"""Which router chooses best? Ours against every baseline, from measured outcomes; no model is run.

    python benchmarks/routing.py                                the table, from the committed outcomes
    python benchmarks/routing.py --json out.json                and every figure as JSON
    python benchmarks/routing.py --score lenient --only traitroute,base --protocols unseen_loto
    python benchmarks/routing.py --outcomes my.safetensors      over outcomes of your own (see outcomes.py)
    python benchmarks/routing.py --ablations                    what each part of our router is worth
    python benchmarks/routing.py --seeds                        our router fitted with other random numbers
    python benchmarks/routing.py --curves tasks,examples        learning curves, the guard, calibration; alone: all
    (hours)

100% is the best adapter of each task, chosen on one half of the task's examples and scored on the other. What each
protocol holds out is said in routing_protocols.py.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from routing.baselines import BASELINES
from routing.curves import CURVES, Study, curves
from routing.ours import ABLATIONS, OURS, SEEDS
from routing.protocols import PROTOCOLS
from routing.table import OUTCOMES, OutcomeTable, chosen, load
from routing.trials import Job, Pool, Trial, figures, fold_list, scores_of


def show(protocol: str, found: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print one protocol's table."""
    doc = (PROTOCOLS[protocol].__doc__ or "").splitlines()[0]
    table = Table(title=f"{protocol}: {doc}", title_justify="left")
    table.add_column("router", overflow="fold")
    for column in (
        "% of best [95%]",
        "% of naive",
        "gain recovered [95%]",
        "below base",
        "top-1",
        "regret p90",
        "to base",
        "p > single",
    ):
        table.add_column(column, justify="right")
    for name, f in found.items():
        table.add_row(
            name,
            f"{f['pct_of_best']:.1f} {_interval(f['pct_of_best_ci'])}",
            f"{f['pct_of_naive_best']:.1f}",
            f"{f['gain_recovered']:.0f} {_interval(f['gain_recovered_ci'])}",
            f"{f['tasks_below_base']}/{f['tasks']}",
            f"{f['top1_agreement']:.2f}",
            f"{f['regret']['p90']:.2f}",
            f"{100 * f['base_share']:.0f}%" if "base_share" in f else "",
            f"{f['p_vs_best_single']:.3f}" if "p_vs_best_single" in f else "",
            style="bold" if name == "traitroute" else "",
        )
    console.print(table)


def _interval(ends: list[float]) -> str:
    return f"[{ends[0]:.0f}, {ends[1]:.0f}]"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=OUTCOMES, help="an outcome table")
    parser.add_argument("--data", type=Path, help="folder of task data: check the table against its texts")
    parser.add_argument("--score", choices=("strict", "lenient"), default="strict")
    parser.add_argument("--protocols", default="", help=f"of {', '.join(PROTOCOLS)}; comma-separated")
    parser.add_argument("--only", default="", help="routers to run, comma-separated")
    parser.add_argument("--ablations", action="store_true", help="our router with parts left out")
    parser.add_argument("--seeds", action="store_true", help="our router fitted with other random numbers")
    parser.add_argument("--curves", nargs="?", const=",".join(CURVES), help=f"of {', '.join(CURVES)}; alone: all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write every figure here")
    return parser.parse_args()


def check_texts(table: OutcomeTable, data: Path) -> str:
    """Read the texts behind the table anew, and compare digests and marks."""
    from routing.plan import conversation_digest, read_plan
    from traitroute.router import request_text
    from traitroute.router.request import RequestTokens

    texts = {
        bytes(conversation_digest(c)): request_text({"messages": list(c)})
        for asked in read_plan(data).asked
        for c in asked.conversations
    }
    found = [(i, texts[d]) for i, d in enumerate(map(bytes, table.digest)) if d in texts]
    same = sum(np.array_equal(RequestTokens.read(text).whole.places, table.marks[i].whole.places) for i, text in found)
    return f"{len(found)} of {len(table)} requests have their text in {data}; {same} give the same marks"


def main() -> None:
    """Run the benchmark."""
    given = arguments()
    console = Console(width=150)
    table = load(given.outcomes)
    if given.data is not None:
        console.print(check_texts(table, given.data))
    others = ABLATIONS if given.ablations else SEEDS if given.seeds else BASELINES
    routers = chosen(given.only, {**OURS, **others}, "router")
    protocols = chosen(given.protocols, PROTOCOLS, "protocol")
    console.print(
        f"{len(table.adapters)} adapters on {table.source}, {len(table.tasks)} tasks of "
        f"{len(set(table.datasets))} data sets, {len(table)} requests; score: {given.score}; "
        f"{platform.processor() or platform.machine()}, {time.strftime('%Y-%m-%d')}"
    )
    found: dict[str, Any] = {}
    start = time.perf_counter()
    with Pool(given.processes) as pool:
        for protocol in protocols:
            jobs = [
                Job(given.outcomes, given.score, protocol, i, tuple(routers))
                for i in range(len(fold_list(table, protocol)))
            ]
            if not jobs:
                console.print(f"{protocol}: the table holds no such requests")
                continue
            with Progress(console=console, transient=True) as progress:
                bar = progress.add_task(protocol, total=len(jobs))
                answers = pool.answers(jobs, lambda p=progress, b=bar: p.advance(b))
            trial = Trial.of(table, scores_of(table, given.score), protocol, answers)
            found[protocol] = figures(table, trial, given.score)
            show(protocol, found[protocol], console)
        if given.curves:
            named = list(chosen(given.curves, CURVES, "curve"))
            study = Study(given.outcomes, table, given.score, pool)
            found["curves"] = curves(study, named, console)
    console.print(f"{time.perf_counter() - start:.0f} s")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
