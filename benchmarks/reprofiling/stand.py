"""A live system for the benchmarks of re-profiling: a profiled registry, `vllm serve` over it, and `traitroute
worker`s.

The model is a two-layer Llama in float32 whose adapters answer unlike each other. Each task's right answers are those
of one of the first adapters, so that the matrix is real and a cell of the wrong adapter would show.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from serving.stand import TINY_WEIGHTS, Stand, adapter_record, save_adapter, tiny_base
from serving.topics import TOPICS
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.profiling import Task, TransferMatrix, open_base_model
from traitroute.profiling.fit import fit
from traitroute.profiling.matrix.measure import cell_key, measure
from traitroute.serving.engines import EngineRequest, TransformersEngine
from traitroute.serving.engines.engine import PromptTokenizer
from traitroute.serving.vllm import RunningServer, running_server

ENGINE = "openai-vllm"
FIRST = ("coder", "cook", "critic", "doctor")
EXAMPLES, ANSWER_TOKENS, CONTEXT = 16, 6, 256
SLOTS = 28
"""Adapters that the server has room for: on CPUs that is fixed at its start."""


@dataclass
class LiveSystem:
    """What stands in `folder`; `served` are the adapters by the names that servers answer by."""

    folder: Path
    registry: Registry
    port: int
    served: dict[str, Adapter] = field(default_factory=dict)
    server: RunningServer | None = None
    _serving: ExitStack = field(default_factory=ExitStack)
    _workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def base(self) -> Path:
        """The base model's folder."""
        return self.folder / "tiny"

    @property
    def stand(self) -> Stand:
        """The stand that clients of the serving benchmarks take; requests are of the first adapters' topics."""
        assert self.server is not None
        rows = {name: TOPICS[name] for name in FIRST}
        return Stand(self.server, self.registry, self.folder, self.base, rows)

    def profile(self) -> None:
        """Measure the first adapters on a task each, and fit a profile."""
        tiny_base(self.base)
        adapters = [self._made(name, seed) for seed, name in enumerate(FIRST)]
        engine = self._engine()
        for adapter in adapters:
            self.registry.add_adapter(adapter)
        tasks = [self._task(adapter, engine) for adapter in adapters]
        for task in tasks:
            self.registry.put_task(task.name, task.digest, task.model_dump(mode="json"))
        base = open_base_model(str(self.base))
        cells = measure(engine, self.registry, base, adapters, tasks)
        matrix = TransferMatrix.from_cells(cells)
        fitted = fit(matrix, tasks, [None] * len(adapters))
        summary = fitted.summary(
            None,
            base_model=str(self.base),
            cells=tuple(cell.key for cell in cells),
            weights={a.name: a.weights_digest for a in adapters},
        )
        self.registry.put_profile(fitted.routing.to_bytes(), summary, ready=matrix.adapters)

    def add(self, name: str, seed: int) -> Adapter:
        """Add an adapter of random weights, to be measured."""
        adapter = self._made(name, seed)
        self.registry.add_adapter(adapter)
        return adapter

    def replace(self, name: str, seed: int) -> Adapter:
        """Let other weights wait to replace an adapter's."""
        adapter = self.registry.replace_adapter(self._made(name, seed))
        self.served[f"{name}@{adapter.version}"] = adapter
        return adapter

    def start_server(self) -> None:
        """Serve the registry with vLLM."""
        slots = str(SLOTS)
        options = ["--dtype", "float32", "--scheduling-policy", "priority"]
        options += ["--max-loras", slots, "--max-cpu-loras", slots]
        self.server = self._serving.enter_context(
            running_server(
                self.registry.location,
                self.base,
                self.registry.adapters(AdapterState.READY),
                log_path=self.folder / "server.log",
                port=self.port,
                max_model_len=CONTEXT,
                options=options,
            )
        )

    def kill_server(self) -> None:
        """SIGKILL to the server and its engine."""
        assert self.server is not None
        os.killpg(self.server.pid, signal.SIGKILL)
        self._serving.close()

    def start_worker(self, url: str, *, share: float = 1) -> None:
        """Start one more worker, which measures through `url` up to a share of each row."""
        command = [str(Path(sys.executable).with_name("traitroute")), "worker", "--server", url]
        command += ["--share", str(share)]
        place = {"TRAITROUTE_REGISTRY": self.registry.location.reveal()}
        with (self.folder / "worker.log").open("ab") as log:
            self._workers.append(subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ) | place))

    def kill_worker(self) -> None:
        """SIGKILL to the newest worker."""
        worker = self._workers.pop()
        worker.kill()
        worker.wait()

    def close(self) -> None:
        """End what still runs."""
        while self._workers:
            self.kill_worker()
        self._serving.close()

    @cached_property
    def task_prompts(self) -> dict[tuple[int, ...], str]:
        """The task of each example's prompt, by its token ids."""
        prompts, specs = PromptTokenizer(self.base), self.registry.tasks()
        return {
            tuple(prompts.prompt([{"role": "user", "content": e.prompt}])): name
            for name, spec in specs.items()
            for e in Task.model_validate(spec).test_examples
        }

    @cached_property
    def _digests(self) -> tuple[str, dict[str, str]]:
        return open_base_model(str(self.base)).digest, self.registry.task_digests()

    def cell_key(self, cell: tuple[str, str]) -> str:
        """The key of the cell of a model's name and a task's."""
        model, task = cell
        base, tasks = self._digests
        return cell_key(base, self.served.get(model), tasks[task], ENGINE)

    def measured_rightly(self) -> dict[str, float]:
        """For each added adapter, the share of its cells' answers that this process gets too, by the same weights."""
        engine, shares = self._engine(), {}
        tasks = {n: Task.model_validate(s) for n, s in self.registry.tasks().items()}
        base = open_base_model(str(self.base))
        for name, adapter in self.served.items():
            if name in FIRST:
                continue
            keys = {t: self.cell_key((name, t)) for t in tasks}
            found = {c.task: c.outcomes for c in self.registry.cells(keys=list(keys.values()))}
            with Registry.create(self.folder / "check.db") as scratch:
                wanted = measure(engine, scratch, base, [adapter], list(tasks.values()))
            alike = [
                found[c.task].output_digest == c.outcomes.output_digest
                for c in wanted
                if c.adapter is not None and c.task in found
            ]
            shares[name] = float(np.mean(alike)) if len(alike) == len(tasks) else 0.0
        engine.close()
        return shares

    def _engine(self) -> TransformersEngine:
        return TransformersEngine(self.base, self.registry.weights, precision="float32")

    def _made(self, name: str, seed: int) -> Adapter:
        folder = self.folder / "adapters" / f"{name}-{seed}"
        save_adapter(self.base, folder, seed=seed, weights=TINY_WEIGHTS)
        found = adapter_record(self.registry, folder, name, self.base)
        self.served[name] = found.model_copy(update={"state": AdapterState.PENDING})
        return self.served[name]

    def _task(self, adapter: Adapter, engine: TransformersEngine) -> Task:
        """Requests of the adapter's topic; right is what it answers itself."""
        rows: Sequence[str] = TOPICS[adapter.name]
        prompts = [f"{rows[i % len(rows)]} {'abcdefgh'[i // len(rows)]}" for i in range(EXAMPLES)]
        asked = [EngineRequest(({"role": "user", "content": p},), adapter, ANSWER_TOKENS) for p in prompts]
        pairs = zip(prompts, engine.run(asked), strict=True)
        told = [json.dumps({"input": p, "target": r.text.strip() or "-"}) for p, r in pairs]
        name = f"of-{adapter.name}"
        folder = self.folder / "data" / name
        folder.mkdir(parents=True)
        (folder / "test.jsonl").write_text("\n".join(told) + "\n")
        spec = {"rows": {"folder": str(folder.parent)}, "test": EXAMPLES, "train": 0}
        return Task.model_validate({"name": name, "max_tokens": ANSWER_TOKENS, **spec})
