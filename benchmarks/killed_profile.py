"""A first profile through a real `vllm serve` whose client and server are killed (SIGKILL): is anything measured twice?

    nice python benchmarks/killed_profile.py --json killed.json

SmolLM2 and LoRAs of random weights (or `--adapters DIR`), which vLLM is told of on its command line: a plain server,
without the plugin. `traitroute profile --server` measures four tasks of the built-in suite, one of them by
`agreement`, through a proxy that writes down each request for an answer. After a third of them the client is killed and
started again, after two thirds the server. Then the profile must be whole, and no cell that was in the registry asked
for again.

Needs vLLM (on CPUs its CPU build), and the extras `profile` and `worker`. What it found: docs/own-adapters.md.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from reprofiling.measuring_log import Cell, MeasuringLog
from reprofiling.stand import ENGINE
from rich.console import Console
from rich.table import Table
from serving.stand import PACKAGED_WEIGHTS, save_adapters
from traitroute.adapters import Registry
from traitroute.profiling import PACKAGED, GivenAdapter, Suite, Task, open_base_model
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.given import find_adapters
from traitroute.profiling.matrix.measure import cell_key
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.tasks.suite import target_tasks
from traitroute.serving.engines.engine import PromptTokenizer
from traitroute.serving.vllm import RunningServer, free_port, running_process, serve_command, serve_environment

console = Console(width=120)
COMMAND = str(Path(sys.executable).with_name("traitroute"))
EMBEDDED = "openai-traitroute-answers"
TASKS = ("sentiment2", "toxicity", "word_problems", "paraphrase")
VOTED = "paraphrase"
"""The task whose right answers are not looked at."""
ADAPTERS, ROWS, ANSWER_TOKENS, CONTEXT = 3, 8, 12, 1024
PATIENCE_S = 1800.0


@dataclass(frozen=True)
class Found:
    """A profile of `cells`, each of `rows` examples, took `asked` requests for answers, of which `repeated` had been
    made before, for `begun_anew` cells that were under way when something was killed. `late` were for cells that were
    finished. `client_killed` and `server_killed` are requests made until then.
    """

    versions: int
    cells: int
    rows: int
    asked: int
    repeated: int
    begun_anew: int
    late: int
    client_killed: int
    server_killed: int
    seconds: float
    server_start_s: float


@dataclass(frozen=True)
class Site:
    """A suite, the registry that it is profiled into, and where its server and logs are."""

    folder: Path
    base: BaseModelFolder
    suite: Suite
    registry: Registry
    port: int
    embedded: bool = False

    @contextmanager
    def server(self, number: int) -> Iterator[RunningServer]:
        """The server, until the block ends."""
        command, environment = self._embedded() if self.embedded else self._vllm()
        log, url = self.folder / f"server-{number}.log", f"http://127.0.0.1:{self.port}"
        with running_process(command, url, log_path=log, environment=environment, start_limit_s=PATIENCE_S) as server:
            yield server

    def _vllm(self) -> tuple[list[str], dict[str, str]]:
        """`vllm serve` with all adapters on its command line."""
        folders = [f"{a.name}={a.uri}" for a in self.suite.adapters]
        command = serve_command(self.base.path, [], port=self.port, max_model_len=CONTEXT)
        # On CPUs one slot stays empty, or base answers from it.
        slots = str(len(folders) + 1)
        command += ["--max-loras", slots, "--max-cpu-loras", slots, "--lora-modules", *folders]
        small = {"VLLM_PLUGINS": "", "VLLM_CPU_KVCACHE_SPACE": "1"}
        return command, serve_environment(self.registry.location, self.base.path) | small

    def _embedded(self) -> tuple[list[str], dict[str, str]]:
        """`traitroute serve` of the embedded server, which follows the registry."""
        command = [COMMAND, "serve", str(self.base.path), "--engine", "transformers", "--port", str(self.port)]
        return [*command, "--registry", str(self.registry.path)], dict(os.environ)

    def client(self, url: str) -> subprocess.Popen[bytes]:
        """`traitroute profile`, measuring at `url`."""
        (self.folder / "suite.yaml").write_text(self.suite.to_yaml())
        command = [COMMAND, "profile", str(self.folder / "suite.yaml"), "--server", url]
        command += ["--registry", str(self.registry.path)]
        with (self.folder / "client.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def task_of(self) -> Callable[[tuple[int, ...]], str | None]:
        """What tells the task of a prompt's token ids."""
        prompts = PromptTokenizer(self.base.path)
        tasks = {tuple(prompts.prompt(e.messages)): t.name for t in self.suite.tasks for e in t.test_examples}
        return tasks.get

    def is_finished(self, cell: Cell) -> bool:
        """Whether the registry has the cell of a model's name and a task's."""
        adapters = {a.name: a for a in self.registry.adapters()}
        engine = EMBEDDED if self.embedded else ENGINE
        digest = next(task.digest for task in self.suite.tasks if task.name == cell[1])
        return self.registry.find_cell(cell_key(self.base.digest, adapters.get(cell[0]), digest, engine)) is not None


def main() -> None:
    """Kill, count, and print."""
    arguments = _arguments()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as name, Registry.create(Path(name) / "registry.db") as registry:
        folder = arguments.logs or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        base = open_base_model(arguments.base)
        given = find_adapters(arguments.adapters) if arguments.adapters else _made(base, Path(name) / "loras")
        suite = Suite(name="killed", base_model=arguments.base, tasks=_tasks(), adapters=tuple(given))
        found = _run(
            Site(folder, base, suite, registry, free_port(), arguments.embedded), random.Random(arguments.seed)
        )
    shown = Table("", "", show_header=False)
    for key, value in asdict(found).items():
        shown.add_row(key, f"{value:g}")
    console.print(shown)
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    sys.exit(1 if found.late or found.versions != 1 or found.begun_anew > 2 else 0)


def _run(site: Site, draw: random.Random) -> Found:
    cells = (1 + len(site.suite.adapters)) * len(site.suite.tasks)
    third, began = cells * ROWS // 3, time.monotonic()
    log = MeasuringLog(f"http://127.0.0.1:{site.port}", site.task_of(), site.is_finished)
    with log.listening():
        with site.server(0) as server:
            started = time.monotonic() - began
            console.print(f"the server answers after {started:.0f} s")
            client = site.client(log.url)
            first = _await(site, log, third + draw.randrange(ROWS), client)
            client.send_signal(signal.SIGKILL)
            client.wait()
            console.print(f"client killed after {first} requests")
            client = site.client(log.url)
            second = _await(site, log, 2 * third + draw.randrange(ROWS), client)
            os.killpg(server.pid, signal.SIGKILL)
            console.print(f"server killed after {second} requests")
        with site.server(1):
            # On a busy machine the server may need longer to start than the client waits for it.
            if client.wait(PATIENCE_S) != 0 and site.client(log.url).wait(PATIENCE_S) != 0:
                sys.exit((site.folder / "client.log").read_text()[-3000:])
    return Found(
        versions=len(site.registry.profile_versions()),
        cells=len({cell for cell, _ in log.examples}),
        rows=ROWS,
        asked=log.asked,
        repeated=sum(log.repeated.values()),
        begun_anew=len(log.repeated),
        late=log.late.total(),
        client_killed=first,
        server_killed=second,
        seconds=time.monotonic() - began,
        server_start_s=started,
    )


def _await(site: Site, log: MeasuringLog, asked: int, client: subprocess.Popen[bytes]) -> int:
    """Wait until so many answers were asked for; how many they are then."""
    until = time.monotonic() + PATIENCE_S
    while log.asked < asked:
        if client.poll() is not None or time.monotonic() > until:
            client.kill()
            said = (site.folder / "client.log").read_text()[-3000:]
            sys.exit(f"the client ended, or asked for too little: {log.asked} of {asked} answers\n{said}")
        time.sleep(0.05)
    return log.asked


def _tasks() -> tuple[Task, ...]:
    specs = {t.name: t.model_dump() | {"max_tokens": ANSWER_TOKENS} for t in target_tasks("mini", test=ROWS)}
    specs[VOTED] |= {"metric": "agreement", "labels": ()}
    return tuple(Task.model_validate(specs[name]) for name in TASKS)


def _made(base: BaseModelFolder, folder: Path) -> Sequence[GivenAdapter]:
    """Adapters of random weights, which change what is answered."""
    folders = [folder / f"random-{number}" for number in range(ADAPTERS)]
    save_adapters(base.path, folders, weights=PACKAGED_WEIGHTS)
    return [GivenAdapter(name=each.name, uri=str(each)) for each in folders]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default=PACKAGED, help="the base model")
    parser.add_argument("--adapters", type=Path, help="a folder of LoRAs for it, instead of random ones")
    parser.add_argument("--embedded", action="store_true", help="the embedded server, instead of vLLM")
    parser.add_argument("--seed", type=int, default=0, help="when something is killed")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--logs", type=Path, help="keep the logs of server and client in this folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
