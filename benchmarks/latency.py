"""How long a routing decision takes, beside the package semantic-router on MiniLM: one core, one run.

    python benchmarks/latency.py --data DATA                   real requests, DATA holds <task>/test.jsonl
    python benchmarks/latency.py                               requests of the suite mini
    python benchmarks/latency.py --data DATA --json OUT        and write the figures

Texts are rows of all tasks, joined and cut so that lengths spread log-uniformly over 50 to 4,000 characters. Both
routers answer the same texts in turns of a few, in changing order. Times are from text to decision:
semantic-router encodes with the packaged MiniLM (256 tokens), then queries its index; "MiniLM alone" is the
encoding. Start-up and memory (growth of resident memory over imports) are each taken in a process of its own.

The gains that our profile is fitted to, adapters beyond ten, and the vectors of semantic-router's utterances are made
up: see `latency/routers.py`. Needs the extra `linguistics`; `make benchmarks`, then `.venv-benchmarks/bin/python` in
place of `python`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from latency.one_core import keep_to_one_core, processor
from latency.routers import Contender, measured_start, our_contenders, their_contenders
from latency.texts import FIT_ROWS, WARM_UP, Rows, read_rows, request_texts, split_rows
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from traitroute.profiling.profile import quiet_libraries

console = Console(width=150)

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "sentence-transformers", "semantic-router")
SIZES = (10, 1_000, 10_000)
TURN = 10
"""Texts that a router answers before another has its turn."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds a decision over all texts and over the shortest and longest third; start-up s, memory MB."""

    router: str
    adapters: int
    median_ms: float
    p99_ms: float
    mean_ms: float
    short_median_ms: float
    long_median_ms: float
    start_s: float | None = None
    growth_mb: float | None = None


def main() -> None:
    """Measure, print the table, and write it where asked."""
    arguments = _arguments()
    keep_to_one_core()
    if arguments.start:
        print(json.dumps(measured_start(arguments.start)))
        return
    quiet_libraries()
    rng = np.random.default_rng(arguments.seed)
    fit_rows, rows = split_rows(read_rows(arguments.data, rng), FIT_ROWS)
    texts = request_texts(rows, arguments.texts + WARM_UP, rng)
    with tempfile.TemporaryDirectory() as folder:
        contenders = [
            *our_contenders(fit_rows, arguments.sizes, Path(folder), rng),
            *their_contenders(arguments.sizes, arguments.utterances, Path(folder), rng),
        ]
        times = interleaved(contenders, texts, rng)
        found = [summary(c, ms, texts[WARM_UP:]) for c, ms in zip(contenders, times, strict=True)]
    conditions = describe(texts[WARM_UP:], rows, arguments)
    console.print(table(found), conditions["sentence"], highlight=False)
    if arguments.json:
        record = conditions | {"results": [asdict(f) for f in found]}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def interleaved(contenders: Sequence[Contender], texts: Sequence[str], rng: np.random.Generator) -> NDArray[np.float64]:
    """Milliseconds of each decision, (contenders, texts after the warm-up)."""
    for contender in contenders:
        for text in texts[:WARM_UP]:
            contender.ask(text)
    timed = texts[WARM_UP:]
    spent = np.empty((len(contenders), len(timed)))
    for first in range(0, len(timed), TURN):
        for i in rng.permutation(len(contenders)):
            for j in range(first, min(first + TURN, len(timed))):
                begin = time.perf_counter_ns()
                contenders[i].ask(timed[j])
                spent[i, j] = (time.perf_counter_ns() - begin) / 1e6
    return spent


def summary(contender: Contender, ms: NDArray[np.float64], texts: Sequence[str]) -> Latency:
    """Quantiles of the times, by length too, and what a fresh process says of starting up."""
    lengths = np.array([len(t) for t in texts])
    low, high = np.quantile(lengths, [1 / 3, 2 / 3])
    started = _in_process(contender.start) if contender.start else {}
    return Latency(
        router=contender.router,
        adapters=contender.adapters,
        median_ms=float(np.median(ms)),
        p99_ms=float(np.quantile(ms, 0.99)),
        mean_ms=float(ms.mean()),
        short_median_ms=float(np.median(ms[lengths <= low])),
        long_median_ms=float(np.median(ms[lengths >= high])),
        **started,
    )


def _in_process(file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--start", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def table(found: Sequence[Latency]) -> Table:
    """One line a router and number of adapters."""
    shown = Table(title="milliseconds a routing decision, one core", title_justify="left")
    shown.add_column("router")
    for name in (
        "adapters",
        "median",
        "p99",
        "shortest third",
        "longest third",
        "start-up s",
        "memory MB",
    ):
        shown.add_column(name, justify="right")
    for f in found:
        figures = (f.median_ms, f.p99_ms, f.short_median_ms, f.long_median_ms)
        began = ("", "") if f.start_s is None else (f"{f.start_s:.3f}", f"+{f.growth_mb:.0f}")
        size = f"{f.adapters:,}" if f.adapters else ""
        shown.add_row(f.router, size, *(f"{ms:.2f}" for ms in figures), *began)
    return shown


def describe(texts: Sequence[str], rows: Rows, arguments: argparse.Namespace) -> dict[str, Any]:
    """What was measured on what, and when."""
    lengths = [len(t) for t in texts]
    stated: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "texts": len(texts),
        "characters": [min(lengths), int(np.median(lengths)), max(lengths)],
        "source": f"{len(rows)} {'tasks' if arguments.data else 'tasks of the suite mini'}",
        "utterances": arguments.utterances,
        "seed": arguments.seed,
        "load_average": os.getloadavg()[0],
    }
    packages = ", ".join(f"{name} {v}" for name, v in stated["packages"].items())
    low, middle, high = stated["characters"]
    stated["sentence"] = (
        f"{stated['date']}, 1 core of {stated['processor']}, Python {stated['python']}, {packages}; "
        f"{len(texts):,} texts of "
        f"{stated['source']}, {low} to {high:,} characters, median {middle}; "
        f"{arguments.utterances} utterances a route; "
        f"gains, further adapters and utterance vectors made up; load average {stated['load_average']:.1f}"
    )
    return stated


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--texts", type=int, default=1_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of adapters")
    parser.add_argument("--utterances", type=int, default=5, help="a route of semantic-router")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
