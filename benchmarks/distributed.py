"""Profiling on several processes and machines: is it faster, and is what comes out the same, whoever is killed?

    python benchmarks/distributed.py speed --json speed.json        one process of all threads, then local:2
    python benchmarks/distributed.py faults --json faults.json      two Ray nodes, PostgreSQL; killed, frozen, thawed

`speed` profiles the same suite (`--suite`, by default a small part of the built-in one) by the command line into two
empty folders, in turns, and prints the wall times of each stage.

`faults` trains LoRAs (six) of a tiny model of random weights and measures them on their tasks, first in one process,
then on a Ray cluster of two nodes (on this machine, each with a raylet of its own). A node is killed (SIGKILL, with its
processes) and replaced at random moments, the driver is killed once and started again, and a node is frozen (SIGSTOP)
until the profile is finished, then thawed (SIGCONT). A trigger of PostgreSQL writes down each attempt to keep a cell.
Then the registry must have the keys, the digests of answers and of weights that one process made, one version of the
profile, and no more repeated cells than were under way on the node that was frozen.

Needs the extras `profile`, `postgresql` and `ray`, and a PostgreSQL server. What they found: docs/distributed.md.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from reprofiling.postgres_server import postgres_server
from serving.stand import tiny_base
from sqlalchemy import Engine, create_engine, text
from traitroute.adapters import Registry
from traitroute.profiling import Suite, load_suite, profile
from traitroute.profiling.execution.cluster import QUICK
from traitroute.serving.vllm import free_port
from traitroute.serving.vllm.options import CPU_VARIABLES

COMMAND = [sys.executable, "-c", "from traitroute.cli import main; main()"]
TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ': ' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)
SOURCES = ("sentiment2", "sentiment3", "toxicity", "paraphrase", "entailment", "structured")
PATIENCE_S, LOOK_S = 3600.0, 0.1
PATIENT = {"RAY_agent_register_timeout_ms": "300000"}
"""A node ends itself whose agents have not begun within so long, by default 30 s, which a busy machine exceeds."""
LOGGED = """
CREATE TABLE attempts (key text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION log_attempt() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO attempts (key) VALUES (NEW.key); RETURN NEW; END $$;
CREATE TRIGGER log_attempts BEFORE INSERT ON cells FOR EACH ROW EXECUTE FUNCTION log_attempt();
"""


@dataclass(frozen=True)
class Found:
    """What `faults` found: `cells`, attempts to keep one beyond the first (`repeated`), and what differs from one
    process. `repeated_before_thaw` are those while the frozen node slept.
    """

    trainings: int
    cells: int
    other_keys: int
    other_answers: int
    other_weights: int
    versions: int
    repeated: int
    repeated_before_thaw: int
    nodes_killed: int
    drivers_killed: int
    frozen: int
    one_process_s: float
    cluster_s: float

    @property
    def is_same(self) -> bool:
        """Whether all is as one process made it."""
        differs = self.other_keys or self.other_answers or self.other_weights
        return not differs and self.versions == 1 and self.repeated_before_thaw == 0 and self.repeated <= self.frozen


@dataclass
class Nodes:
    """A head without processors, and nodes of one each, on this machine."""

    alive: list[Any] = field(default_factory=list)

    def __enter__(self) -> "Nodes":
        from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

        os.environ.update(QUICK | PATIENT)
        head = {"num_cpus": 0, "include_dashboard": False, **_ports()}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.shutdown()

    def add(self) -> None:
        """Add a node."""
        options: dict[str, Any] = {"num_cpus": 1, "memory": 2**33, **_ports()}
        self.alive.append(self.cluster.add_node(**options))

    def kill(self, which: int) -> None:
        """Kill a node and its processes, and add another."""
        node = self.alive.pop(which)
        _signal(self.processes(node), signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)
        self.add()

    def processes(self, node: Any) -> list[psutil.Process]:
        """The raylet of a node, and all that it started."""
        raylet = psutil.Process(dict(node.live_processes())["raylet"].pid)
        return [raylet, *raylet.children(recursive=True)]


def _ports() -> dict[str, int]:
    """Ports that a node would otherwise wait for its agents to choose, for 15 seconds, which a busy machine exceeds."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    return {name: free_port() for name in names}


def _signal(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def faults(arguments: argparse.Namespace) -> Found:
    """Kill, freeze, thaw, and compare with one process."""
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name, postgres_server(durable=False) as server:
        folder = Path(name)
        suite = folder / "suite.yaml"
        suite.write_text(_suite(tiny_base(folder / "tiny", template=TEMPLATE), arguments.adapters).to_yaml())
        one, one_s = _in_one_process(folder, suite)
        url = server.new_database()
        Registry.create(url, weights=folder / "weights").close()
        logged = create_engine(url, isolation_level="AUTOCOMMIT")
        with logged.connect() as connection:
            connection.execute(text(LOGGED))
        began = time.monotonic()
        with Nodes() as nodes:
            # Everyday requests are one more task.
            units = arguments.adapters + (1 + arguments.adapters) * (arguments.adapters + 1)
            run = _Run(folder, suite, url, logged, nodes, folder / "cluster", units)
            counts = run.under_faults(draw, arguments.kills)
            seconds = time.monotonic() - began
        with logged.connect() as connection:
            attempts, distinct = connection.execute(text("SELECT count(*), count(DISTINCT key) FROM attempts")).one()
        with Registry.open(url, weights=folder / "weights") as registry:
            found = _made(registry)
            versions = len(registry.profile_versions())
    return Found(
        trainings=len(found.weights),
        cells=len(found.answers),
        other_keys=len(found.answers.keys() ^ one.answers.keys()),
        other_answers=sum(one.answers.get(key) != answers for key, answers in found.answers.items()),
        other_weights=sum(one.weights.get(key) != digest for key, digest in found.weights.items()),
        versions=versions,
        repeated=attempts - distinct,
        one_process_s=one_s,
        cluster_s=seconds,
        **counts,
    )


@dataclass
class _Run:
    folder: Path
    suite: Path
    url: str
    database: Engine
    nodes: Nodes
    runs: Path
    units: int
    """Trainings and cells of the profile."""

    def under_faults(self, draw: random.Random, kills: int) -> dict[str, int]:
        """Profile until it is done, whoever is killed meanwhile; what was done to it."""
        moments = sorted(draw.sample(range(1, self.units - 2), kills + 2))
        acts = ["node"] * (kills + 1) + ["driver"]
        draw.shuffle(acts)
        # The last to be hit is frozen, so that it sleeps while the others finish.
        acts[max(i for i, act in enumerate(acts) if act == "node")] = "freeze"
        self.nodes.add()
        self.nodes.add()
        driver, frozen = self._driver(), []
        for moment, act in zip(moments, acts, strict=True):
            driver = self._await(moment, driver)
            if (done := self.finished()) >= self.units:
                sys.exit(f"all was done before a {act} was hit: give the tasks more rows")
            print(f"{done} of {self.units} done: {act}", flush=True)
            if act == "driver":
                driver.send_signal(signal.SIGKILL)
                driver.wait()
                driver = self._driver()
            elif act == "freeze":
                node = self.nodes.alive.pop(draw.randrange(len(self.nodes.alive)))
                frozen = self.nodes.processes(node)
                _signal(frozen, signal.SIGSTOP)
                self.nodes.add()
            else:
                self.nodes.kill(draw.randrange(len(self.nodes.alive)))
        driver = self._await(self.units + 1, driver)
        before_thaw = self.repeated()
        _signal(frozen, signal.SIGCONT)
        # A thawed node finds that it was given up, and ends; until then its worker goes on with its cell.
        _, left = psutil.wait_procs(frozen, timeout=120)
        print(f"thawed: {len(frozen) - len(left)} of {len(frozen)} processes ended by themselves", flush=True)
        _signal(left, signal.SIGKILL)
        return {
            "repeated_before_thaw": before_thaw,
            "nodes_killed": acts.count("node"),
            "drivers_killed": acts.count("driver"),
            "frozen": acts.count("freeze"),
        }

    def finished(self) -> int:
        """How many trainings and cells are there."""
        trained = sum(1 for _ in self.runs.glob("[!.]*/training.json"))
        return trained + self._count("SELECT count(*) FROM cells")

    def repeated(self) -> int:
        """How many attempts to keep a cell there were beyond the first."""
        return self._count("SELECT count(*) - count(DISTINCT key) FROM attempts")

    def _count(self, query: str) -> int:
        with self.database.connect() as connection:
            return connection.execute(text(query)).scalar_one()

    def _driver(self) -> "subprocess.Popen[bytes]":
        command = [*COMMAND, "profile", str(self.suite), "--registry", self.url, "--runs", str(self.runs)]
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--on", f"ray:{self.nodes.cluster.address}"],
                stdout=log,
                stderr=log,
                env=_environment(TRAITROUTE_WEIGHTS=str(self.folder / "weights")),
            )

    def _await(self, finished: int, driver: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes]":
        """Wait until so much is finished, or all."""
        until = time.monotonic() + PATIENCE_S
        while (code := driver.poll()) is None and self.finished() < finished:
            if time.monotonic() > until:
                sys.exit("the run did not get there:\n" + (self.folder / "driver.log").read_text()[-3000:])
            time.sleep(LOOK_S)
        if code:
            sys.exit("the driver failed:\n" + (self.folder / "driver.log").read_text()[-3000:])
        return driver


@dataclass(frozen=True)
class _Made:
    """Digests of all answers by the cells' keys, and of the weights by the adapters' names."""

    answers: Mapping[str, bytes]
    weights: Mapping[str, str]


def _made(registry: Registry) -> _Made:
    cells = {cell.key: cell.outcomes.output_digest.tobytes() for cell in registry.cells()}
    return _Made(cells, {adapter.name: adapter.weights_digest for adapter in registry.adapters()})


def _in_one_process(folder: Path, suite: Path) -> tuple[_Made, float]:
    import torch

    began = time.monotonic()
    # As many as a job has on a node of one processor.
    torch.set_num_threads(1)
    with Registry.create(folder / "one.db") as registry:
        _ = profile(load_suite(suite), registry, folder / "one")
        return _made(registry), time.monotonic() - began


def _environment(**more: str) -> dict[str, str]:
    return {**CPU_VARIABLES, "OMP_NUM_THREADS": "1", **os.environ, **more}


def _suite(base: Path, adapters: int) -> Suite:
    """Tasks of the built-in suite, with short answers; one takes half a second, so that faults find some."""
    sizes = {"train": 64, "test": 64, "max_tokens": 6, "source": True}
    chosen = [task.model_dump() | sizes for task in load_suite("mini").tasks if task.name in SOURCES[:adapters]]
    return Suite.model_validate(
        {
            "name": "faults",
            "base_model": str(base),
            "engine": "transformers",
            "training": {"rank": 8, "alpha": 16, "learning_rate": 1e-2},
            "tasks": chosen,
        }
    )


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """The wall times of one process of all threads and of two processes, in turns."""
    times: dict[str, list[float]] = {"local": [], "local:2": []}
    with _suite_file(arguments) as suite:
        for turn in range(arguments.turns):
            # Each is first in every other turn.
            for place in sorted(times, reverse=bool(turn % 2)):
                with tempfile.TemporaryDirectory() as folder:
                    began = time.monotonic()
                    command = [*COMMAND, "profile", str(suite), "--registry", f"{folder}/t.db", "--on", place]
                    environment = {**CPU_VARIABLES, **os.environ}
                    environment.pop("OMP_NUM_THREADS", None)
                    done = subprocess.run(command, env=environment, capture_output=True, text=True)
                    if done.returncode:
                        sys.exit(done.stderr[-3000:])
                    times[place].append(time.monotonic() - began)
                    stages = next((line for line in done.stdout.splitlines() if line.startswith("time:")), "")
                    print(f"{place}: {times[place][-1]:.0f} s; {stages}; load {os.getloadavg()[0]:.1f}", flush=True)
    ratio = sum(times["local:2"]) / sum(times["local"])
    return {"seconds": times, "ratio": ratio, "cores": os.cpu_count()}


@contextmanager
def _suite_file(arguments: argparse.Namespace) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        suite = load_suite(arguments.suite).altered(train=arguments.train, test=arguments.test)
        file = Path(name) / "suite.yaml"
        file.write_text(suite.to_yaml())
        yield file


def main() -> None:
    """Measure, print, and end with 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "faults"))
    parser.add_argument("--adapters", type=int, default=6, choices=range(3, 7), help="faults: LoRAs, and their tasks")
    parser.add_argument("--kills", type=int, default=5, help="nodes that are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which")
    parser.add_argument("--suite", default="mini", help="speed: a suite")
    parser.add_argument("--train", type=int, default=64, help="speed: training rows a source")
    parser.add_argument("--test", type=int, default=24, help="speed: test rows a task")
    parser.add_argument("--turns", type=int, default=2, help="speed: how often each is timed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    kinds: Mapping[str, Callable[[argparse.Namespace], Any]] = {"speed": speed, "faults": faults}
    found = kinds[arguments.what](arguments)
    figures = found if isinstance(found, dict) else asdict(found)
    print(json.dumps(figures, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(0 if isinstance(found, dict) or found.is_same else 1)


if __name__ == "__main__":
    main()
