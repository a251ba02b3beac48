"""Measure what the routing benchmark routes over: every adapter, and base, on every request, per example.

    python benchmarks/outcomes.py --data DATA            train, measure, write the table (hours on 2 cores)
    python benchmarks/outcomes.py --data DATA --table    write the table from what is measured so far

DATA holds <task>/{train,test}.jsonl; `routing_tasks.yaml` says what is asked of them. A killed run goes on
where it was: a trained adapter or measured cell in --work is not repeated. Two processes of one thread each
do more on two cores than one process of two threads, and more still where something else runs.
"""

import argparse
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from routing_table import OutcomeTable, to_sparse
from traitroute.adapters import Adapter, Outcomes, WeightStore, packed_texts
from traitroute.profiling import Suite, Task, load_suite, open_base_model, train_adapter
from traitroute.profiling.analysis.semantics import load_encoder
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.measure import request_for, to_outcomes
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.training import adapter_record
from traitroute.router import request_text
from traitroute.router.marks import RequestMarks
from traitroute.serving.engines import Engine, TransformersEngine

HERE = Path(__file__).parent
Kind = Literal["main", "probe", "reworded", "tools", "turns", "long"]
SHOWN = 100
"""So many training rows of an adapter speak for its source in the table."""

AGENT_KINDS: tuple[Kind, ...] = ("tools", "turns", "long")


@dataclass(frozen=True)
class Asked:
    """One way of asking a data set: `task` renders its rows, `kind` says what it is for."""

    kind: Kind
    dataset: str
    task: Task
    frame: dict[str, str]

    @property
    def name(self) -> str:
        return self.task.name

    @cached_property
    def conversations(self) -> list[tuple[dict[str, str], ...]]:
        """The messages sent, one conversation a test row."""
        return [self._framed(e.prompt) for e in self.task.test_examples]

    def _framed(self, prompt: str) -> tuple[dict[str, str], ...]:
        user = {"role": "user", "content": prompt}
        if self.kind == "tools":
            system = self.frame["system"] + "\n" + self.frame["tools"]
            return ({"role": "system", "content": system}, user)
        if self.kind == "long":
            user = {"role": "user", "content": self.frame["context"] + "\n\n" + prompt}
            return ({"role": "system", "content": self.frame["system"]}, user)
        if self.kind == "turns":
            shown = self.task.examples("train", 1)[0]
            first = {"role": "user", "content": shown.prompt}
            return (first, {"role": "assistant", "content": shown.target}, user)
        return (user,)


@dataclass(frozen=True)
class Plan:
    """Everything to train and to measure."""

    sources: tuple[Task, ...]
    asked: tuple[Asked, ...]
    suite: Suite


def read_plan(data: Path, *, train: int, test: int, few: int, agent: int) -> Plan:
    """The tasks of routing_tasks.yaml over `data`: `test` rows of a task, `few` of its variants."""
    spec = yaml.safe_load((HERE / "routing_tasks.yaml").read_text())
    suite = load_suite("paper-local").over(data)
    tasks = {t.name: t for t in suite.tasks if t.name not in spec["left_out"]}
    for name, limit in spec["max_tokens"].items():
        tasks[name] = tasks[name].model_copy(update={"max_tokens": limit})
    main = {n: t.model_copy(update={"test": test, "train": train}) for n, t in tasks.items()}
    asked = [Asked("main", n, t, {}) for n, t in main.items()]
    for probe in spec["probes"]:
        rows = {"folder": str(data.resolve()), "dataset": probe["dataset"]}
        settings = {"max_tokens": 10} | {k: v for k, v in probe.items() if k != "dataset"}
        task = Task.model_validate({"rows": rows, "test": few, **settings})
        asked.append(Asked("probe", probe["dataset"], task, {}))
    for name, prompt in spec["reworded"].items():
        asked.append(
            Asked("reworded", name, _variant(tasks[name], "reworded", few, prompt=prompt), {})
        )
    frame = spec["agent"]
    for kind in AGENT_KINDS:
        for name in frame["tasks"]:
            asked.append(Asked(kind, name, _variant(tasks[name], kind, agent), frame))
    return Plan(tuple(main[n] for n in spec["sources"]), tuple(asked), suite)


def _variant(task: Task, kind: str, rows: int, **changes: Any) -> Task:
    place = task.rows.model_copy(update={"dataset": task.name})
    named = {"name": f"{task.name}-{kind}", "rows": place, "test": rows, "seed": 1}
    return task.model_copy(update={**named, **changes})


@dataclass(frozen=True)
class Job:
    """What one process does: train the adapter `source` (None: base) if need be, and measure it on `names`."""

    source: str | None
    names: tuple[str, ...] = ()


def jobs_of(plan: Plan) -> list[Job]:
    """The main tasks first, for base and every adapter: what is measured so far is then of use."""
    main = [a.name for a in plan.asked if a.kind == "main"]
    rest = [a.name for a in plan.asked if a.kind != "main"]
    rows = [None, *(t.name for t in plan.sources)]
    jobs = [Job(None, part) for part in _parts(main)]
    for pair in _parts(rows[1:], 2):
        jobs += [Job(source) for source in pair]
        jobs += [Job(source, part) for source in pair for part in _parts(main)]
    return jobs + [Job(source, part) for source in rows for part in _parts(rest, 24)]


def _parts(names: Sequence[str], size: int = 5) -> list[tuple[str, ...]]:
    return [tuple(names[i : i + size]) for i in range(0, len(names), size)]


def do(job: Job, plan: Plan, work: Path) -> str:
    """Train the job's adapter, unless that is done, and measure what is not measured yet."""
    import torch

    quiet_libraries()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    base = open_base_model(plan.suite.base_model)
    store = WeightStore(work / "weights")
    adapter = _adapter(job.source, plan, base, work, store) if job.source else None
    wanted = [
        a
        for a in plan.asked
        if a.name in job.names and not cell_file(work, job.source, a).is_file()
    ]
    if wanted:
        engine = TransformersEngine(base.path, store)
        for asked in wanted:
            _measure(engine, adapter, asked, cell_file(work, job.source, asked))
    return f"{job.source or 'base'}: {', '.join(job.names) or 'trained'}"


def _adapter(
    name: str, plan: Plan, base: BaseModelFolder, work: Path, store: WeightStore
) -> Adapter:
    task = next(t for t in plan.sources if t.name == name)
    work.mkdir(parents=True, exist_ok=True)
    with (work / f"{name}.lock").open("w") as lock:
        # Whoever comes second waits, and finds the adapter trained.
        fcntl.flock(lock, fcntl.LOCK_EX)
        trained = train_adapter(task.training_set, base, plan.suite.training, work / "runs" / name)
    return adapter_record(name, name, base, store.add(trained.folder))


def _measure(engine: Engine, adapter: Adapter | None, asked: Asked, file: Path) -> None:
    start = time.perf_counter()
    examples = asked.task.test_examples
    requests = [
        replace(request_for(asked.task, e, adapter), messages=m)
        for e, m in zip(examples, asked.conversations, strict=True)
    ]
    results = engine.run(requests)
    outcomes = to_outcomes(asked.task, examples, results)
    outcomes = replace(outcomes, **packed_texts([r.text for r in results]))
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.write_bytes(outcomes.to_bytes())
    draft.replace(file)
    seconds = time.perf_counter() - start
    with (file.parent / "seconds.jsonl").open("a") as log:
        log.write(
            json.dumps({"task": asked.name, "rows": len(requests), "seconds": seconds}) + "\n"
        )


def cell_file(work: Path, source: str | None, asked: Asked) -> Path:
    """Where a cell is kept; named by all that determines it but the engine, which is this one."""
    parts = json.dumps([asked.task.digest, asked.conversations])
    digest = hashlib.sha256(parts.encode()).hexdigest()[:12]
    return work / "cells" / (source or "base") / f"{asked.name}-{digest}.safetensors"


def read_cell(file: Path) -> Outcomes:
    """The outcomes in `file`."""
    return Outcomes.from_bytes(file.read_bytes())


def run(plan: Plan, work: Path, processes: int) -> None:
    """Do all jobs in `processes` processes, and say what is done."""
    from rich.progress import Progress

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with (
        # A process a job: an allocator that keeps its memory never gives back what training took.
        ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), max_tasks_per_child=1
        ) as pool,
        Progress() as progress,
    ):
        jobs = jobs_of(plan)
        bar = progress.add_task("train and measure", total=len(jobs))
        for done in as_completed([pool.submit(do, job, plan, work) for job in jobs]):
            progress.console.print(f"{time.strftime('%H:%M:%S')} {done.result()}")
            progress.advance(bar)


def write_table(plan: Plan, work: Path, file: Path) -> None:
    """Put what is measured into the table: adapters and tasks of which every cell is there."""
    adapters = [
        t.name
        for t in plan.sources
        if all(cell_file(work, t.name, a).is_file() for a in plan.asked if a.kind == "main")
    ]
    rows: list[str | None] = [None, *adapters]
    asked = [a for a in plan.asked if all(cell_file(work, r, a).is_file() for r in rows)]
    cells = [[read_cell(cell_file(work, r, a)) for r in rows] for a in asked]

    def column(read: Callable[[Outcomes, int], NDArray[Any]]) -> NDArray[Any]:
        """(n, 1 + adapters) of what `read` takes from a cell, given its task's place."""
        return np.concatenate(
            [np.stack([read(c, i) for c in row], axis=1) for i, row in enumerate(cells)]
        )

    encode = SentenceCache(work / "sentences.npz")
    texts = [request_text({"messages": list(c)}) for a in asked for c in a.conversations]
    sources = [t.training_examples[:SHOWN] for t in plan.sources if t.name in adapters]
    prompts = [e.prompt for examples in sources for e in examples]
    answers = [e.target for examples in sources for e in examples]
    source_marks = [RequestMarks.read(t) for t in prompts]
    marks = [RequestMarks.read(t) for t in texts]
    table = OutcomeTable(
        adapters=tuple(adapters),
        tasks=tuple(a.name for a in asked),
        datasets=tuple(a.dataset for a in asked),
        kinds=tuple(a.kind for a in asked),
        source=plan.suite.base_model,
        task=np.repeat(np.arange(len(asked)), [len(a.conversations) for a in asked]).astype(
            np.int16
        ),
        row=np.concatenate([_row_digests(a) for a in asked]),
        digest=np.array(
            [conversation_digest(c) for a in asked for c in a.conversations], dtype=np.uint8
        ),
        strict=column(lambda c, i: c.strict),
        lenient=column(lambda c, i: c.lenient),
        likelihood=column(lambda c, i: c.log_likelihood / np.maximum(c.target_tokens, 1)).astype(
            np.float16
        ),
        gold_probability=column(lambda c, i: _gold_probability(asked[i].task, c)).astype(
            np.float16
        ),
        output_tokens=column(lambda c, i: c.output_tokens).astype(np.uint16),
        surface=np.array([m.surface for m in marks], dtype=np.float32),
        words=to_sparse([m.whole for m in marks]),
        edges=to_sparse([m.edges for m in marks]),
        sentence=encode(texts).astype(np.float16),
        source_adapter=np.repeat(np.arange(len(sources)), [len(e) for e in sources]).astype(
            np.int16
        ),
        source_surface=np.array([m.surface for m in source_marks], dtype=np.float32),
        source_sentence=encode(prompts).astype(np.float16),
        source_words=to_sparse([m.whole for m in source_marks]),
        source_edges=to_sparse([m.edges for m in source_marks]),
        source_answers=to_sparse([RequestMarks.read(a).whole for a in answers]),
    )
    table.save(file)
    print(f"{file}: {len(adapters)} adapters, {len(asked)} tasks, {len(table)} requests")


class SentenceCache:
    """The packaged MiniLM, texts to unit vectors (n, 384); what was encoded once is kept in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, NDArray[np.float32]] = dict(np.load(file)) if file.is_file() else {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        keys = [hashlib.sha256(t.encode()).hexdigest()[:24] for t in texts]
        new = {k: t for k, t in zip(keys, texts, strict=True) if k not in self._known}
        if new:
            model = load_encoder(max_tokens=256)
            vectors = model.encode(list(new.values()), batch_size=32, normalize_embeddings=True)
            self._known |= dict(zip(new, vectors, strict=True))
            np.savez(self._file, **self._known)  # pyright: ignore[reportArgumentType]
        return np.array([self._known[k] for k in keys])


def _gold_probability(task: Task, cell: Outcomes) -> NDArray[np.float32]:
    if not cell.label_probabilities.shape[1]:
        return np.full(len(cell), np.nan, np.float32)
    gold = [task.labels.index(e.answer) for e in task.test_examples]
    return cell.label_probabilities[np.arange(len(cell)), gold]


def _row_digests(asked: Asked) -> NDArray[np.uint64]:
    task = asked.task
    rows = task.rows.load(task.name, "test", task.test, seed=task.seed)
    found = [hashlib.sha256(r["input"].encode()).digest()[:8] for r in rows]
    return np.frombuffer(b"".join(found), np.uint64)


def conversation_digest(conversation: Sequence[dict[str, str]]) -> list[int]:
    """128 bits of the digest of the messages sent."""
    return list(hashlib.sha256(json.dumps(conversation).encode()).digest()[:16])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of task data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/routing"), help="kept between runs")
    parser.add_argument("--train", type=int, default=400, help="training rows of a source")
    parser.add_argument("--test", type=int, default=100, help="test rows of a task")
    parser.add_argument("--few", type=int, default=16, help="test rows of a reworded task or probe")
    parser.add_argument(
        "--agent", type=int, default=3, help="test rows of a task in each agent form"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--out", type=Path, default=HERE / "routing_outcomes.safetensors")
    return parser.parse_args()


def main() -> None:
    """Train and measure."""
    given = arguments()
    sizes = {"train": given.train, "test": given.test, "few": given.few, "agent": given.agent}
    plan = read_plan(given.data, **sizes)
    if not given.table:
        run(plan, given.work, given.processes)
    write_table(plan, given.work, given.out)


if __name__ == "__main__":
    main()
