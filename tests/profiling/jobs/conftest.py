"""A profiled registry of a tiny Llama, behind a real embedded server that writes down every request it gets."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.adapters.registry.registry import copy_registry
from traitroute.profiling import Task, TransferMatrix, open_base_model
from traitroute.profiling.fit import fit
from traitroute.profiling.matrix.measure import cell_key, measure
from traitroute.serving.engines import EngineRequest, TransformersEngine
from traitroute.serving.jobs import Job, JobBoard

from ...servers import serving

pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[embedded]'")
pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[embedded]'")
pytest.importorskip("dbos", reason="needs DBOS: pip install 'traitroute[worker]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'traitroute[embedded]'")

SEEDS = {"red": 0, "green": 1, "blue": 2}
EXAMPLES, ANSWER_TOKENS = 24, 6


@dataclass
class House:
    """A base model, a registry with a fitted profile of three adapters on as many tasks, and a folder of the test's
    own.
    """

    root: Path
    base: Path
    tiny: Any
    registry: Registry
    served: dict[str, Adapter] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """The base model's digest."""
        return open_base_model(str(self.base)).digest

    @cached_property
    def tasks(self) -> dict[str, str]:
        """The tasks' digests."""
        return self.registry.task_digests()

    def adapter(self, name: str, *, seed: int, **lora: Any) -> Adapter:
        """The record of new random weights, which are in the store."""
        folder = self.root / f"{name}-{seed}"
        self.tiny.save_adapter(self.base, folder, seed=seed, **{"lora_alpha": 8, **lora})
        files = self.registry.weights.add(folder)
        return Adapter(
            name=name,
            base_model=str(self.base),
            base_digest=self.digest,
            weights_digest=files.digest,
            rank=files.rank,
            target_modules=files.target_modules,
        )

    def add(self, name: str, *, seed: int, **lora: Any) -> Adapter:
        """Add an adapter that waits to be measured."""
        adapter = self.served[name] = self.adapter(name, seed=seed, **lora)
        self.registry.add_adapter(adapter)
        return adapter

    def replace(self, name: str, *, seed: int) -> Adapter:
        """Let other weights wait to replace an adapter."""
        adapter = self.registry.replace_adapter(self.adapter(name, seed=seed))
        self.served[f"{name}@{adapter.version}"] = adapter
        return adapter

    def profile(self, tasks_each: int = 1) -> None:
        """Measure three adapters on tasks that one of them each answers rightly, and fit a profile."""
        adapters = [self.adapter(name, seed=seed) for name, seed in SEEDS.items()]
        base = open_base_model(str(self.base))
        engine = TransformersEngine(self.base, self.registry.weights, precision="float32")
        tasks = [self._task(a, engine, number) for number in range(tasks_each) for a in adapters]
        for adapter in adapters:
            self.registry.add_adapter(adapter)
        for task in tasks:
            self.registry.put_task(task.name, task.digest, task.model_dump(mode="json"))
        cells = measure(engine, self.registry, base, adapters, tasks)
        matrix = TransferMatrix.from_cells(cells)
        engine.close()
        fitted = fit(matrix, tasks, [None] * len(adapters))
        summary = fitted.summary(
            None,
            base_model=str(self.base),
            cells=tuple(cell.key for cell in cells),
            weights={a.name: a.weights_digest for a in adapters},
        )
        self.registry.put_profile(fitted.routing.to_bytes(), summary, ready=matrix.adapters)

    def is_finished(self, asked: tuple[str, tuple[int, ...]]) -> bool:
        """Whether the cell that a request is for was measured already."""
        return self.registry.find_cell(self.cell_of(asked)) is not None

    def cell_of(self, asked: tuple[str, tuple[int, ...]]) -> str:
        """The key of the cell that a request is for: a task's prompts begin with words of its own."""
        model, prompt = asked
        task = next(name for name, seed in SEEDS.items() if prompt[0] // 10 == seed + 1)
        return cell_key(
            self.digest,
            self.served.get(model),
            self.tasks[f"of-{task}"],
            "openai-traitroute-answers",
        )

    def _task(self, adapter: Adapter, engine: TransformersEngine, number: int) -> Task:
        """Requests of words of the adapter's own, of which it answers every one rightly, by its own lights."""
        first = 10 + 10 * SEEDS[adapter.name]
        prompts = [f"w{first + i % 8} w{first + i // 8} w{3 + i} w{first + number}" for i in range(EXAMPLES)]
        asked = [EngineRequest(({"role": "user", "content": p},), adapter, ANSWER_TOKENS) for p in prompts]
        rows = [{"input": p, "target": r.text or "w9"} for p, r in zip(prompts, engine.run(asked), strict=True)]
        folder = self.root / "data" / (f"of-{adapter.name}" + f"-{number}" * (number > 0))
        folder.mkdir(parents=True)
        (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
        spec = {"rows": {"folder": str(self.root / "data")}, "test": EXAMPLES, "train": 0}
        return Task.model_validate({"name": folder.name, "max_tokens": ANSWER_TOKENS, **spec})


Asked = tuple[str, tuple[int, ...]]


@dataclass
class Notes:
    """What the server was asked, in order: the model and the prompt's token ids; `late` is what `is_finished` by
    then. Prompts with the `unknown` token are left out: the server refuses them, as it does everyday requests here.
    """

    is_finished: Callable[[Asked], bool] = lambda asked: False
    asked: list[Asked] = field(default_factory=list)
    late: list[Asked] = field(default_factory=list)
    unknown: int | None = None

    def wrap(self, app: Any) -> Any:
        """Pure ASGI that writes down every completion request, and then serves it."""

        async def noting(scope: Any, receive: Any, send: Any) -> None:
            async def reading() -> Any:
                message = await receive()
                if scope["path"] == "/v1/completions" and message.get("body"):
                    body = json.loads(message["body"])
                    # Of one token: whether prompts can be scored, whether the server has the adapter, and the probe.
                    if body["max_tokens"] > 1 and self.unknown not in body["prompt"]:
                        self._note((body["model"], tuple(body["prompt"])))
                return message

            await app(scope, reading if scope["type"] == "http" else receive, send)

        return noting

    def _note(self, asked: Asked) -> None:
        self.asked.append(asked)
        if self.is_finished(asked):
            self.late.append(asked)


@dataclass
class Site:
    """A house that is served at `url`, and the workers that were started for it."""

    house: House
    url: str
    notes: Notes
    workers: list[subprocess.Popen[str]] = field(default_factory=list)

    def start_worker(self, *options: str, share: float = 1) -> subprocess.Popen[str]:
        """Start `traitroute worker` as a process of its own."""
        command = [Path(sys.executable).with_name("traitroute"), "worker", "--server", self.url]
        command += ["--registry", self.house.registry.location.reveal()]
        command += ["--share", str(share), *options]
        log = (self.house.root / f"worker-{len(self.workers)}.log").open("w")
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, text=True, env=dict(os.environ))
        log.close()
        self.workers.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """SIGKILL: nothing of the worker's is done after this."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def jobs(self) -> list[Job]:
        """The jobs, the newest first."""
        return JobBoard(self.house.registry.location).jobs()

    def await_state(self, name: str, state: AdapterState, *, limit_s: float = 300) -> Adapter:
        """Wait until the adapter is in `state`, and return it."""
        self.wait(lambda: self.house.registry.adapter(name).state is state, limit_s)
        return self.house.registry.adapter(name)

    def wait(self, happened: Callable[[], bool], limit_s: float = 300) -> None:
        """Wait until something happened."""
        until = time.monotonic() + limit_s
        while not happened():
            assert time.monotonic() < until, (self.logs(), self.jobs())
            time.sleep(0.02)

    def logs(self) -> str:
        """What all workers said."""
        return "\n".join(p.read_text() for p in sorted(self.house.root.glob("worker-*.log")))


@contextmanager
def open_site(house: House) -> Iterator[Site]:
    """Serve the house from a thread of this process, and end its workers afterwards."""
    from traitroute.serving.embedded import EmbeddedOptions, open_app

    options = EmbeddedOptions(precision="float32")
    app = open_app(house.base, house.registry.location, name="tiny", options=options)
    notes = Notes(house.is_finished, unknown=house.tiny.words)
    with serving(notes.wrap(app)) as url:
        site = Site(house, url, notes)
        try:
            yield site
        finally:
            for process in site.workers:
                if process.poll() is None:
                    site.kill(process)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the registry is: a path, or for tests that ask for it a URL too."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return str(tmp_path / "registry.db")
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture(scope="session")
def profiled_house(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Iterator[House]:
    """The house that the tests' own are copies of."""
    root = tmp_path_factory.mktemp("house")
    with Registry.create(root / "registry.db") as registry:
        made = House(root, tiny.save(root / "tiny"), tiny, registry)
        made.profile()
        yield made


@pytest.fixture
def house(place: str, tmp_path: Path, profiled_house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house of the test's own."""
    monkeypatch.setenv("TRAITROUTE_WEIGHTS", str(tmp_path / "weights"))
    with Registry.create(place) as registry:
        copy_registry(profiled_house.registry, registry)
        yield House(tmp_path, profiled_house.base, profiled_house.tiny, registry)


@pytest.fixture
def site(house: House) -> Iterator[Site]:
    """That house, served."""
    with open_site(house) as it:
        yield it
