"""Measure what the routing benchmark routes over: every adapter, and base, on every request, per example.

    python benchmarks/outcomes.py --data DATA --data PROMPTS            train, measure, write the table (hours)
    python benchmarks/outcomes.py --data DATA --data PROMPTS --table    write what is measured so far, at any time
    python benchmarks/outcomes.py --data DATA --data PROMPTS --plan benchmarks/routing/measure_qwen.yaml
                                                         another plan and base model, its own folder and table
    python benchmarks/outcomes.py --data MINE --sources reviews,sql --work runs/mine --out mine.safetensors
                                                         the same over tasks of your own: then routing.py --outcomes

The folders hold <data set>/{train,test}.jsonl; `routing/measure.yaml` says what is asked of ours, and of yours it is
read off the rows. A killed run goes on where it was: a trained adapter or measured cell in --work is not repeated, nor
is what the table in --out holds, so that another machine goes on from a committed table; an adapter that it trains anew
and finds to have other weights is measured anew. Two processes of one thread
each do more on two cores than one process of two threads, and more still where something else runs.
"""

import argparse
import fcntl
import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from routing.gather import write_table
from routing.measured import Measured
from routing.plan import MEASURE, Asked, Plan, Sizes, Source, cell_file, read_folder_plan, read_plan
from routing.table import SMOLLM2
from traitroute.adapters import Adapter, InputError, WeightStore, packed_texts
from traitroute.profiling import TrainedAdapter, train_adapter
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.matrix.measure import request_for, to_outcomes
from traitroute.profiling.profile import quiet_libraries
from traitroute.profiling.training import adapter_record
from traitroute.serving.engines import TransformersEngine
from traitroute.serving.vllm.options import CPU_VARIABLES

CELLS = 8
"""So many cells are measured together, and kept when all of them are done."""
PARTS = 5
"""So many times before a new process goes on."""


@dataclass(frozen=True)
class Job:
    """What one process does: train the adapter (None: base) if need be, and measure it on everything.

    What the table in the file `known` holds is not measured again.
    """

    source: Source | None
    plan: Plan
    work: Path
    known: Path = SMOLLM2

    @property
    def name(self) -> str:
        return self.source.name if self.source else "base"


def do(job: Job) -> str:
    """Train the job's adapter, unless that is done, and measure what is not measured yet."""
    measured = Measured.read(job.plan, job.work, job.known)
    waiting = measured.waiting(job.source)
    if not waiting:
        return job.name
    adapter = _adapter(job.source, measured.base, job) if job.source else None
    # Trained anew it may have other weights than what the table holds is of.
    waiting = Measured.read(job.plan, job.work, job.known).waiting(job.source)
    # An allocator that keeps its memory grows to 11 GB over all parts.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=PARTS) as pool:
        for part in _parts(waiting):
            pool.submit(_measure, measured.base.path, adapter, part, job).result()
    return job.name


@cache
def _engine(base: Path, work: Path) -> TransformersEngine:
    import torch

    quiet_libraries()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return TransformersEngine(base, WeightStore(work / "weights"))


def _parts(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Cells to measure together: of one kind, whose frame is then read once for all, and of like length of answer."""
    for _, of_kind in groupby(sorted(asked, key=lambda a: (a.kind != "main", a.kind)), key=lambda a: a.kind):
        cells = sorted(of_kind, key=lambda a: a.task.max_tokens)
        yield from (cells[i : i + CELLS] for i in range(0, len(cells), CELLS))


def _adapter(source: Source, base: BaseModelFolder, job: Job) -> Adapter:
    # In a process of its own, one at a time: training takes 11 GB on long rows, and its allocator gives nothing back.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        trained = pool.submit(_train, source, base, job).result()
    _log(job, "trained", {"seconds": trained.seconds, "tokens": trained.tokens, "reused": trained.reused})
    return adapter_record(source.name, source.name, base, WeightStore(job.work / "weights").add(trained.folder))


def _train(source: Source, base: BaseModelFolder, job: Job) -> TrainedAdapter:
    import torch

    quiet_libraries()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with (job.work / "training.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return train_adapter(source, base, job.plan.training, job.work / "runs" / source.name)


def _measure(base: Path, adapter: Adapter | None, asked: Sequence[Asked], job: Job) -> None:
    engine = _engine(base, job.work)
    start = time.perf_counter()
    requests = [
        replace(request_for(a.task, e, adapter), messages=m)
        for a in asked
        for e, m in zip(a.task.test_examples, a.conversations, strict=True)
    ]
    results = iter(engine.run(requests))
    for each in asked:
        examples = each.task.test_examples
        own = list(islice(results, len(examples)))
        outcomes = replace(to_outcomes(each.task, examples, own), **packed_texts([r.text for r in own]))
        file = cell_file(job.work, adapter and adapter.name, each)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_bytes(outcomes.to_bytes())
        draft.replace(file)
    seconds = round(time.perf_counter() - start, 1)
    _log(job, "measured", {"cells": [a.name for a in asked], "rows": len(requests), "seconds": seconds})


def _log(job: Job, what: str, facts: Mapping[str, Any]) -> None:
    with (job.work / "seconds.jsonl").open("a") as log:
        log.write(json.dumps({"at": time.strftime("%H:%M:%S"), "adapter": job.name, "what": what, **facts}) + "\n")


def run(plan: Plan, work: Path, processes: int, only: Collection[str] = (), known: Path = SMOLLM2) -> None:
    """Do all jobs in `processes` processes, or those of the adapters `only`, and say what is done."""
    from rich.progress import Progress

    # Read by the processes started below: glibc gives each temporary back, which doubles the time (docs/decisions.md).
    os.environ |= {"OMP_NUM_THREADS": "1"} | CPU_VARIABLES | os.environ
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
        Progress() as progress,
    ):
        jobs = [Job(source, plan, work, known) for source in (None, *plan.sources)]
        jobs = [job for job in jobs if not only or job.name in only]
        bar = progress.add_task("train and measure", total=len(jobs))
        for done in as_completed([pool.submit(do, job) for job in jobs]):
            progress.console.print(f"{time.strftime('%H:%M:%S')} {done.result()}")
            progress.advance(bar)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="folder of data sets; may be repeated"
    )
    parser.add_argument("--plan", type=Path, default=MEASURE, help="what is measured")
    parser.add_argument("--base", help="base model in place of the plan's: a Hub id, a folder or a GGUF file")
    parser.add_argument("--work", type=Path, help="kept between runs [default: runs/PLAN]")
    parser.add_argument("--sources", help="your own tasks to train adapters on, comma-separated")
    parser.add_argument("--train", type=int, help="training rows of an adapter, in place of the plan's")
    parser.add_argument("--test", type=int, help="test rows of a data set")
    parser.add_argument("--agent", type=int, help="test rows of a data set in each agent form")
    parser.add_argument("--only", default="", help="measure these adapters, comma-separated; base is one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument(
        "--out", type=Path, help="the table to go on from, and to write [default: that of the plan, beside it]"
    )
    given = parser.parse_args()
    given.work = given.work or Path("runs") / given.plan.stem
    given.out = given.out or (
        SMOLLM2 if given.plan.resolve() == MEASURE.resolve() else given.plan.with_suffix(".safetensors")
    )
    return given


def main() -> None:
    """Train and measure."""
    given = arguments()
    sizes = {n: getattr(given, n) for n in ("train", "test", "agent") if getattr(given, n) is not None}
    try:
        plan = (
            read_folder_plan(given.data[0], given.sources.split(","), Sizes(**sizes))
            if given.sources
            else read_plan(given.data, given.work, given.plan, **sizes)
        )
        plan = replace(plan, base_model=given.base or plan.base_model)
        if not given.table:
            Measured.read(plan, given.work, given.out)
            run(plan, given.work, given.processes, set(filter(None, given.only.split(","))), given.out)
        write_table(plan, given.work, given.out)
    except InputError as exc:
        raise SystemExit(str(exc)) from exc


if __name__ == "__main__":
    main()
