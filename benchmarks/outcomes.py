"""Measure what the routing benchmark routes over: every adapter, and base, on every request, per example.

    python benchmarks/outcomes.py --data DATA            train, measure, write the table (hours on 2 cores)
    python benchmarks/outcomes.py --data DATA --table    write the table from what is measured so far
    python benchmarks/outcomes.py --data MINE --sources reviews,sql --work runs/mine --out mine.safetensors
                                                         the same over tasks of your own: then routing.py --outcomes

DATA holds <task>/{train,test}.jsonl; `routing/tasks.yaml` says what is asked of ours, and of yours it is read off the
rows. A killed run goes on where it was: a trained adapter or measured cell in --work is not repeated. Two processes of
one thread each do more on two cores than one process of two threads, and more still where something else runs.
"""

import argparse
import fcntl
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from routing.gather import write_table
from routing.plan import Asked, Plan, Sizes, cell_file, read_folder_plan, read_plan
from routing.table import OUTCOMES
from traitroute.adapters import Adapter, InputError, WeightStore, packed_texts
from traitroute.profiling import open_base_model, train_adapter
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.matrix.measure import request_for, to_outcomes
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.training import adapter_record
from traitroute.serving.engines import Engine, TransformersEngine


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
    wanted = [a for a in plan.asked if a.name in job.names and not cell_file(work, job.source, a).is_file()]
    if wanted:
        engine = TransformersEngine(base.path, store)
        for asked in wanted:
            _measure(engine, adapter, asked, cell_file(work, job.source, asked))
    return f"{job.source or 'base'}: {', '.join(job.names) or 'trained'}"


def _adapter(name: str, plan: Plan, base: BaseModelFolder, work: Path, store: WeightStore) -> Adapter:
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
        log.write(json.dumps({"task": asked.name, "rows": len(requests), "seconds": seconds}) + "\n")


def run(plan: Plan, work: Path, processes: int) -> None:
    """Do all jobs in `processes` processes, and say what is done."""
    from rich.progress import Progress

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with (
        # A process a job: an allocator that keeps its memory never gives back what training took.
        ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
        Progress() as progress,
    ):
        jobs = jobs_of(plan)
        bar = progress.add_task("train and measure", total=len(jobs))
        for done in as_completed([pool.submit(do, job, plan, work) for job in jobs]):
            progress.console.print(f"{time.strftime('%H:%M:%S')} {done.result()}")
            progress.advance(bar)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of task data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/routing"), help="kept between runs")
    parser.add_argument("--sources", help="your own tasks to train adapters on, comma-separated")
    sizes = Sizes()
    parser.add_argument("--train", type=int, default=sizes.train, help="training rows of a source")
    parser.add_argument("--test", type=int, default=sizes.test, help="test rows of a task")
    parser.add_argument("--few", type=int, default=sizes.few, help="test rows of a reworded task or probe")
    parser.add_argument("--agent", type=int, default=sizes.agent, help="test rows of a task in each agent form")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--out", type=Path, default=OUTCOMES)
    return parser.parse_args()


def main() -> None:
    """Train and measure."""
    given = arguments()
    sizes = Sizes(given.train, given.test, given.few, given.agent)
    try:
        plan = (
            read_folder_plan(given.data, given.sources.split(","), sizes)
            if given.sources
            else read_plan(given.data, sizes)
        )
    except InputError as exc:
        raise SystemExit(str(exc)) from exc
    if not given.table:
        run(plan, given.work, given.processes)
    write_table(plan, given.work, given.out)


if __name__ == "__main__":
    main()
