"""SIGKILL of worker, server and database at random moments while adapters are added and measured.

    python benchmarks/reprofiling_faults.py --json faults.json

Counts what was lost, what was measured twice, and what was answered by a wrong adapter: a proxy writes down each
request of the workers, two clients ask all the while, and in the end every measured cell is measured again in this
process and compared.

Needs vLLM (on CPUs its CPU build), PostgreSQL's programs (Debian: postgresql), and the extras `profile`, `worker`,
`postgresql` and `dev`. What it found: docs/worker.md.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from reprofiling.measuring_log import MeasuringLog
from reprofiling.postgres_server import PostgresServer, postgres_server
from reprofiling.stand import FIRST, LiveSystem
from reprofiling.steady_clients import steady_clients
from rich.console import Console
from rich.table import Table
from traitroute.adapters import AdapterState, DatabaseError, Registry
from traitroute.profiling.profile import quiet_libraries
from traitroute.serving.jobs import JobBoard
from traitroute.serving.vllm import free_port

console = Console(width=120)
STRIKES = {"worker": 12, "server": 3, "database": 5}
PATIENCE_S = 900.0


@dataclass(frozen=True)
class Found:
    """`strikes` by what was killed. Of `added` adapters `ready` became routable, each in one of `versions` new
    profiles.

    `cells` were measured with `requests` of the worker, of which `repeated` had been made before: for cells that were
    under way when something was killed. `late` were for cells that were finished. `alike` is the share of measured
    cells whose answers this process gets too. `verdicts` are of clients' answers.
    """

    strikes: dict[str, int]
    seconds: float
    added: int
    ready: int
    versions: int
    cells: int
    requests: int
    repeated: int
    repeated_cells: int
    late: int
    unchecked: int
    alike: float
    verdicts: dict[str, int]
    jobs: dict[str, int]

    def table(self) -> Table:
        """Name and figure."""
        shown = Table("", "", show_header=False)
        for name, value in asdict(self).items():
            shown.add_row(name, str(value))
        return shown


@dataclass
class Striker:
    """Kills at random moments, and keeps the worker busy with adapters that are added."""

    system: LiveSystem
    log: MeasuringLog
    database: PostgresServer
    rng: random.Random
    added: int = 0

    def strike_all(self, names: Sequence[str]) -> None:
        """Strike once for each name, and mend it each time."""
        strikes: dict[str, Callable[[], None]] = {
            "worker": self._worker,
            "server": self._server,
            "database": self._database,
        }
        for number, name in enumerate(names, 1):
            self._await_moment()
            began = time.monotonic()
            strikes[name]()
            mended = time.monotonic() - began
            console.print(f"{number}: {name} killed and started again, {mended:.1f} s")

    def finish(self) -> int:
        """Wait until every adapter that was added is routable, and return how many are."""
        until = time.monotonic() + PATIENCE_S
        while self._pending() and time.monotonic() < until:
            time.sleep(0.5)
        return len(self.system.registry.adapters(AdapterState.READY)) - len(FIRST)

    def _await_moment(self) -> None:
        """A random number of requests from now on, at whatever they are for."""
        heard, until = self.log.asked + self.rng.randrange(1, 60), time.monotonic() + PATIENCE_S
        while self.log.asked < heard and time.monotonic() < until:
            if not self._pending():
                self.system.add(f"added-{self.added}", 100 + self.added)
                self.added += 1
            time.sleep(0.02)

    def _pending(self) -> bool:
        return bool(self.system.registry.adapters(AdapterState.PENDING))

    def _worker(self) -> None:
        self.system.kill_worker()
        self.system.start_worker(self.log.url)

    def _server(self) -> None:
        self.system.kill_server()
        self.system.start_server()

    def _database(self) -> None:
        self.database.kill()
        time.sleep(self.rng.uniform(0.5, 3))
        self.database.start()
        # The connections of this process are dead too, and found so once.
        for _ in range(20):
            with suppress(DatabaseError):
                self._pending()
                return


def main() -> None:
    """Strike, count, and print."""
    arguments = _arguments()
    quiet_libraries()
    names = [name for name, count in STRIKES.items() for _ in range(count)]
    rng = random.Random(arguments.seed)
    rng.shuffle(names)
    with tempfile.TemporaryDirectory() as folder, postgres_server() as database:
        os.environ["TRAITROUTE_WEIGHTS"] = f"{folder}/weights"
        with Registry.create(database.url()) as registry:
            system = LiveSystem(Path(folder), registry, free_port())
            try:
                found = _run(system, database, names[: arguments.strikes], rng)
            finally:
                system.close()
                if arguments.keep_logs:
                    for log in Path(folder).glob("*.log"):
                        (arguments.keep_logs / log.name).write_bytes(log.read_bytes())
    console.print(found.table())
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    wrong = found.late or found.ready < found.added or found.alike < 1
    sys.exit(1 if wrong or found.verdicts.get("wrong adapter") else 0)


def _run(system: LiveSystem, database: PostgresServer, names: Sequence[str], rng: random.Random) -> Found:
    system.profile()
    registry, finished = system.registry, set[str]()

    def is_finished(cell: tuple[str, str]) -> bool:
        key = system.cell_key(cell)
        if key not in finished and registry.find_cell(key):
            finished.add(key)
        return key in finished

    system.start_server()
    log = MeasuringLog(f"http://127.0.0.1:{system.port}", system.task_prompts.get, is_finished)
    striker = Striker(system, log, database, rng)
    with log.listening(), steady_clients(system) as clients:
        system.start_worker(log.url)
        began = time.monotonic()
        striker.strike_all(names)
        ready = striker.finish()
        seconds = time.monotonic() - began
    board = JobBoard(registry.location)
    jobs = board.jobs()
    alike = system.measured_rightly()
    repeated = log.repeated
    return Found(
        strikes={name: names.count(name) for name in STRIKES},
        seconds=seconds,
        added=striker.added,
        ready=ready,
        versions=len(registry.profile_versions()) - 1,
        cells=log.asked and len({cell for cell, _ in log.examples}),
        requests=log.asked,
        repeated=sum(repeated.values()),
        repeated_cells=len(repeated),
        late=log.late.total(),
        unchecked=log.unchecked,
        alike=min(alike.values(), default=0.0),
        verdicts=clients.verdicts(),
        jobs={state: sum(job.state == state for job in jobs) for state in {j.state for j in jobs}},
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    total = sum(STRIKES.values())
    parser.add_argument("--strikes", type=int, default=total, help=f"how many, of {total}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--keep-logs", type=Path, help="copy the logs into this folder at the end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
