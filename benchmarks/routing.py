"""Which router chooses best? Ours against every baseline, from measured outcomes; no model is run.

    python benchmarks/routing.py                                the tables, from the committed outcomes
    python benchmarks/routing.py --json out.json                and every figure as JSON
    python benchmarks/routing.py --only traitroute,base --protocols group_left_out --scores lenient
    python benchmarks/routing.py --outcomes my.safetensors      over outcomes of your own (see outcomes.py)
    python benchmarks/routing.py --ablations                    what each part of our router is worth
    python benchmarks/routing.py --seeds                        our router fitted with other random numbers
    python benchmarks/routing.py --curves groups,adapters       how it moves with what was profiled
    python benchmarks/routing.py --confirm                      on the groups that nothing was chosen by

100% is the best adapter of each data set, or base, chosen on one half of its requests and scored on the other. Means
are over data sets; intervals and tests are over groups of data sets that are alike; p is that ours is not ahead. What
each protocol holds out is said in routing/protocols.py.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from routing.baselines import BASELINES
from routing.curves import CURVES, Study, curves
from routing.ours import ABLATIONS, OURS, SEEDS
from routing.protocols import CONFIRMATIONS, PROTOCOLS, described
from routing.table import SMOLLM2, OutcomeTable, chosen, load
from routing.trials import MEAN, OUR_NAME, SCORES, Found, Job, Pool, Trial, complete_table, fold_list, over_protocols

LOOK = "A look at the groups to confirm on: write it into docs/decisions.md, with date and figures."


def show(title: str, found: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print one protocol's table, of figures by score and router."""
    scores = list(found)
    table = Table(title=f"{title} Scores: {' / '.join(scores)}", title_justify="left")
    table.add_column("router", min_width=36)
    for column in (*(f"{score}: % of best [95%]" for score in scores), "gain recovered", "below base", "to base", "p"):
        table.add_column(column, justify="right")
    for name in dict.fromkeys(name for of in found.values() for name in of):
        figures = [of[name] for of in found.values() if name in of]
        table.add_row(
            name,
            *(f"{f['pct_of_best']:.1f}{_interval(f.get('pct_of_best_ci'))}" for f in figures),
            " / ".join(f"{f['gain_recovered']:.0f}" for f in figures),
            " / ".join(f"{f['groups_below_base']}" for f in figures),
            " / ".join(f"{100 * f['base_share']:.0f}%" if "base_share" in f else "" for f in figures).strip(" /"),
            " / ".join(f"{f['p_traitroute_ahead']:.3f}" if "p_traitroute_ahead" in f else "" for f in figures).strip(
                " /"
            ),
            style="bold" if name == OUR_NAME else "",
        )
    console.print(table)


def _interval(ends: Sequence[float] | None) -> str:
    return f" [{ends[0]:.0f}, {ends[1]:.0f}]" if ends else ""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=SMOLLM2, help="an outcome table")
    parser.add_argument("--data", type=Path, action="append", default=[], help="check the table against these texts")
    parser.add_argument("--scores", default="", help=f"of {', '.join(SCORES)}; comma-separated")
    parser.add_argument("--protocols", default="", help=f"of {', '.join(PROTOCOLS)}; comma-separated")
    parser.add_argument("--confirm", action="store_true", help="test on the groups to confirm on instead")
    parser.add_argument("--only", default="", help="routers to run, comma-separated")
    parser.add_argument("--ablations", action="store_true", help="our router with parts left out")
    parser.add_argument("--seeds", action="store_true", help="our router fitted with other random numbers")
    parser.add_argument("--curves", nargs="?", const=",".join(CURVES), help=f"of {', '.join(CURVES)}; alone: all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write every figure here")
    return parser.parse_args()


def check_texts(table: OutcomeTable, data: Sequence[Path]) -> str:
    """Read the texts behind the table anew, and compare digests and marks."""
    from tempfile import TemporaryDirectory

    from routing.plan import conversation_digest, read_plan
    from traitroute.router import request_text
    from traitroute.router.request import RequestTokens

    with TemporaryDirectory() as work:
        texts = {
            bytes(conversation_digest(c)): request_text({"messages": list(c)})
            for asked in read_plan(data, Path(work)).asked
            for c in asked.conversations
        }
    found = [(i, texts[d]) for i, d in enumerate(map(bytes, table.digest)) if d in texts]
    same = sum(np.array_equal(RequestTokens.read(text).whole.places, table.marks[i].whole.places) for i, text in found)
    return f"{len(found)} of {len(table)} requests have their text there; {same} give the same marks"


def trial(
    file: Path, protocols: Sequence[str], routers: Sequence[str], scores: Sequence[str], pool: Pool, console: Console
) -> dict[str, dict[str, Found]]:
    """Run protocols: what was found, by protocol and score."""
    table = complete_table(file)
    parts = {protocol: fold_list(table, protocol) for protocol in protocols}
    for protocol in [p for p in protocols if not parts[p]]:
        console.print(f"{protocol}: the table holds no such requests")
        del parts[protocol]
    jobs = [Job(file, p, i, tuple(routers), tuple(scores)) for p, of in parts.items() for i in range(len(of))]
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("folds", total=len(jobs))
        answered = iter(pool.answers(jobs, lambda: progress.advance(bar)))
    found: dict[str, dict[str, Found]] = {}
    for protocol, of in parts.items():
        here = [next(answered) for _ in of]
        found[protocol] = {score: Found.of(Trial.of(table, score, of, here)) for score in scores}
    return found


def seconds(found: Mapping[str, Mapping[str, Found]]) -> str:
    """Where the time went: of one core, by router, all protocols and scores together."""
    spent: dict[str, float] = {}
    for by_score in found.values():
        for name, figures in next(iter(by_score.values())).figures.items():
            if "seconds" in figures and not name.startswith("("):
                spent[name] = spent.get(name, 0.0) + figures["seconds"]
    return ", ".join(f"{name} {s:.0f}" for name, s in sorted(spent.items(), key=lambda item: -item[1]) if s >= 1)


def main() -> None:
    """Run the benchmark."""
    given = arguments()
    console = Console(width=170)
    whole = load(given.outcomes)
    table = complete_table(given.outcomes)
    if given.data:
        console.print(check_texts(table, given.data))
    others = ABLATIONS if given.ablations else SEEDS if given.seeds else BASELINES
    routers = list(chosen(given.only, {**OURS, **others}, "router"))
    scores = list(chosen(given.scores, dict.fromkeys(SCORES), "score"))
    protocols = list(chosen(given.protocols, PROTOCOLS, "protocol"))
    if given.confirm:
        protocols = [name for name in CONFIRMATIONS if name.split("_", 1)[1] in protocols]
        console.print(LOOK)
    console.print(
        f"{len(table.adapters)} of {len(whole.adapters)} adapters on {table.source}, {len(set(table.datasets))} of "
        f"{len(set(whole.datasets))} data sets in {len(set(table.groups))} groups, {len(table)} requests measured "
        f"whole; {platform.processor() or platform.machine()}, {time.strftime('%Y-%m-%d')}"
    )
    written: dict[str, Any] = {}
    start = time.perf_counter()
    with Pool(given.processes) as pool:
        found = trial(given.outcomes, protocols, routers, scores, pool, console)
        for protocol, by_score in found.items():
            written[protocol] = {score: each.figures for score, each in by_score.items()}
            show(f"{protocol}: {described(protocol)}", written[protocol], console)
        if len(found) > 1:
            written[MEAN] = {score: over_protocols([each[score] for each in found.values()]) for score in scores}
            show(f"mean of {len(found)} protocols", written[MEAN], console)
        if given.curves:
            named = list(chosen(given.curves, CURVES, "curve"))
            written["curves"] = {score: curves(Study(given.outcomes, score, pool), named, console) for score in scores}
    console.print(f"{time.perf_counter() - start:.0f} s; of one core: {seconds(found)}")
    if given.json:
        given.json.write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main()
