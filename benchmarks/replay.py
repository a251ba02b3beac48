"""How long `traitroute replay` takes a request, and how much memory it needs, however long the log is.

    python benchmarks/replay.py                      2,000 and 10,000 requests, profiles of ten adapters
    python benchmarks/replay.py --adapters 1000

Requests are rows of the built-in suite, joined and cut to 50 to 4,000 characters (`latency/texts.py`); the gains that
the two profiles are fitted to are made up, since time does not depend on them (`latency/routers.py`).
"""

import argparse
import json
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from latency.one_core import keep_to_one_core, processor
from latency.routers import enlarged, fitted_profile
from latency.texts import FIT_ROWS, read_rows, request_texts, split_rows
from rich.console import Console
from rich.table import Table
from traitroute.profiling.replay import Replay, read_asked
from traitroute.router import Router

console = Console(width=120)
DIFFERENT = 1_000
"""So many texts differ; a longer log holds them again, and nothing is kept of a text."""


def main() -> None:
    """Make the logs, replay each, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="*", default=[2_000, 10_000])
    parser.add_argument("--adapters", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keep_to_one_core()
    rng = np.random.default_rng(arguments.seed)
    fit_rows, rows = split_rows(read_rows(None, rng), FIT_ROWS)
    profile = enlarged(fitted_profile(fit_rows, rng), arguments.adapters, rng)
    other = replace(profile, trait_scores=profile.trait_scores + rng.normal(0, 0.02, profile.trait_scores.shape))
    texts = request_texts(rows, DIFFERENT, rng)
    table = Table("requests", "MB", "processor s", "ms a request", "changed", "peak memory, MB", title=processor())
    for count in arguments.requests:
        with tempfile.TemporaryDirectory() as folder:
            log = _log(Path(folder) / "log.jsonl", texts, count)
            replay = Replay(Router(other), Router(profile), {})
            start = time.process_time()
            replay.run(read_asked(log, ()))
            seconds = time.process_time() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            size = log.stat().st_size / 2**20
            figures = (f"{size:.0f}", f"{seconds:.1f}", f"{1000 * seconds / count:.2f}", f"{replay.share:.1%}")
            table.add_row(f"{replay.compared:,}", *figures, f"{peak:.0f}")
    console.print(table)


def _log(path: Path, texts: list[str], count: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            messages = [{"role": "user", "content": texts[i % len(texts)]}]
            file.write(json.dumps({"model": "auto", "messages": messages}) + "\n")
    return path


if __name__ == "__main__":
    main()
