"""What does a small base model save that chooses what to train on a large one? Processor time, beside all of it.

    python benchmarks/scout_cost.py --base LARGE --work WORK

Profiles sources of the built-in suite by the command line, one process after the other: all of them on the large base;
all on the small one, which is what a scout costs; and with `--scout`, in which the large base gets adapters of those
alone that the small one chose. Cost is user and system time of each process and its children, loading included. An
entry of WORK/costs.json is not measured again, so a killed run goes on with the next.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from latency.one_core import ONE_CORE, processor
from rich.console import Console
from rich.table import Table
from traitroute.adapters import Registry
from traitroute.profiling import PACKAGED

COMMAND = [sys.executable, "-c", "from traitroute.cli import main; main()", "profile", "mini"]
TASKS = "word_problems,sentiment3,entailment,structured,sentiment2,paraphrase"
console = Console(width=120)
Cost = dict[str, float]


def cost(arguments: Sequence[str], folder: Path) -> Cost:
    """Profile into an emptied folder; the seconds it took by clock, and how many adapters the registry then has."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    registry = folder / "registry.db"
    started = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*COMMAND, *arguments, "--registry", str(registry)], stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{folder.name} ended with {process.returncode}:\n{(folder / 'log').read_text()[-3000:]}")
    with Registry.open(registry, read_only=True) as store:
        adapters = len(store.adapters())
    wall = time.monotonic() - started
    return {"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "adapters": adapters}


def show(costs: Mapping[str, Cost], names: Mapping[str, str]) -> None:
    """Print a line a run, and what is saved."""
    table = Table("", "adapters", "seconds of a processor", "of all on the large base", "wall")
    for key, name in names.items():
        each = costs[key]
        share = each["cpu"] / costs["all"]["cpu"]
        table.add_row(name, f"{each['adapters']:.0f}", f"{each['cpu']:.0f}", f"{share:.0%}", f"{each['wall']:.0f}")
    console.print(table)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="the large base model, such as the file of scripts/qwen_base.py")
    parser.add_argument("--scout", default=PACKAGED, help="the small one")
    parser.add_argument("--keep", type=int, default=2, help="sources that it keeps")
    parser.add_argument("--tasks", default=TASKS, help="tasks of the built-in suite")
    parser.add_argument("--train", type=int, default=48, help="rows that each source trains on")
    parser.add_argument("--test", type=int, default=12, help="rows that each task is measured on")
    parser.add_argument("--work", type=Path, required=True, help="a folder for registries and runs")
    return parser.parse_args()


def main() -> None:
    """Profile three times, and print what each took."""
    given = arguments()
    os.environ.update(ONE_CORE)
    shared = ["--tasks", given.tasks, "--train", str(given.train), "--test", str(given.test)]
    runs = {
        "small": ["--base", given.scout],
        "scouted": ["--base", given.base, "--scout", given.scout, "--scout-keep", str(given.keep)],
        "all": ["--base", given.base],
    }
    kept = given.work / "costs.json"
    costs: dict[str, Cost] = json.loads(kept.read_text()) if kept.is_file() else {}
    console.print(f"{processor()}, one thread", highlight=False)
    for key, more in runs.items():
        if key not in costs:
            costs[key] = cost([*shared, *more], given.work / key)
            kept.write_text(json.dumps(costs))
    names = {"all": "all on the large base", "scouted": "--scout: in all", "small": "of which on the small base"}
    show(costs, names)


if __name__ == "__main__":
    main()
