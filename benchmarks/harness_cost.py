"""What one adapter's row costs by us and by lm-evaluation-harness: same rows, prompts, model, adapter and machine.

    python benchmarks/harness_cost.py --data DATA --adapters RUNS --work WORK

DATA holds `<task>/test.jsonl`; below RUNS lie adapters that PEFT saved for SmolLM2-135M, such as those of `make demo`
(runs/demo) or of benchmarks/outcomes.py (WORK/runs). All but one are profiled first into WORK, which a second run
finds there. Then the last by name, or `--new`, gets its row, each time in a process of its own with one thread:

- by us in full, and as far as routing decisions need it: `traitroute adapters add`, `adapters measure` with `--full`
  and without, on the registry as it was before;
- by the harness: its hf backend with `peft=`, task files over the same rendered rows, its best batch size and
  precision, found before on some of the tasks, and none of its own tasks indexed.

Both write the greedy answer to the end of the turn or up to the task's limit. Ours also scores the gold answer and
every label, reads the probe, and joins the row to the profile. Cost is user and system time of the process and its
children; starting and loading the model is shown apart too. Both get the allocator settings of the Makefile.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from latency.one_core import ONE_CORE, processor
from numpy.typing import NDArray
from profiling.one_row import Job, Texts
from profiling.tasks_for_both import TASKS, choose_tasks, write_harness_tasks
from rich.console import Console
from rich.table import Table
from traitroute.adapters import Cell, Registry
from traitroute.profiling import PACKAGED, GivenAdapter, Suite, Task, open_base_model, profile
from traitroute.profiling.given import find_adapters

console = Console(width=140)
ONE_ROW = Path(__file__).parent / "profiling" / "one_row.py"
SURROUNDINGS = ONE_CORE | {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "HF_HUB_OFFLINE": "1",
}
SHARE = 0.1
SIZES = (8, 16, 32, 64)
TUNED_ON = 4
"""The harness's batch size is tried on every fourth task."""
REGISTRY = "registry.db"


@dataclass(frozen=True)
class Done:
    """A process that did a job: its `result`, and `seconds` by stage (load, row, all) and clock (cpu, wall)."""

    result: dict[str, Any]
    seconds: dict[str, dict[str, float]]

    def cost(self, stage: str = "all", clock: str = "cpu") -> float:
        """Seconds of a stage."""
        return self.seconds[stage][clock]


def main() -> None:
    """Profile the known adapters, then measure the new one in turn, and print costs and scores."""
    given = _arguments()
    if any(os.environ.get(name) != value for name, value in SURROUNDINGS.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | SURROUNDINGS)
    base = open_base_model(given.base)
    new, known = choose_adapters(given.adapters, given.new)
    tasks = choose_tasks(given.data, given.tasks, given.rows)
    write_harness_tasks(tasks, given.work / "harness-tasks")
    before = profiled(given.work, str(base.path), known, tasks)
    shared: Job = {
        "name": new.name,
        "folder": str(new.uri),
        "base": str(base.path),
        "harness": str(given.work / "harness-tasks"),
        "tasks": [task.name for task in tasks],
        "limit": None,
    }
    rows = [len(task.test_examples) for task in tasks]
    console.print(
        f"{processor()}, one thread; {new.name} beside {len(known)} adapters; {len(tasks)} tasks, {sum(rows)} rows",
        highlight=False,
    )
    best = tuned(shared, given)
    runs: dict[str, list[Done]] = {"harness": [], "full": [], "part": []}
    jobs: dict[str, Job] = {
        "harness": {**shared, **best},
        "full": {**shared, "side": "ours", "share": 1.0},
        "part": {**shared, "side": "ours", "share": SHARE},
    }
    for repetition in range(given.repetitions):
        order = ["harness", "part", "full"]
        sides = order if repetition % 2 == 0 else order[::-1]
        with ThreadPoolExecutor(len(sides) if given.at_once else 1) as pool:
            done = pool.map(lambda side: run(jobs[side], given.work, before, keep=side), sides)
            for side, each in zip(sides, done, strict=True):
                runs[side].append(each)
                console.print(f"  {side}: {_shown(each)}", highlight=False)
    report(runs)
    with Registry.open(given.work / "full" / REGISTRY, read_only=True) as store:
        cells = {c.task: c for c in store.cells() if c.adapter == new.name}
    texts: Texts = runs["harness"][-1].result["texts"]
    console.print(score_table(tasks, cells, texts, runs["part"][-1].result))
    console.print(floor(tasks, texts, base.path), highlight=False)
    if given.check_rows:
        check_equal(shared, best, given, before, tasks)
        same = sum(same_texts(task, texts[task.name], cells)[: given.check_rows].sum() for task in tasks)
        console.print(f"of these rows {same} were answered alike in {best['precision']}", highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="RUNS: `make demo` leaves adapters in runs/demo, benchmarks/outcomes.py in WORK/runs.",
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of TASK/test.jsonl")
    parser.add_argument(
        "--adapters", type=Path, required=True, metavar="RUNS", help="adapters that PEFT saved lie below"
    )
    parser.add_argument("--work", type=Path, required=True, help="a folder for the profile and the task files")
    parser.add_argument("--new", help="the adapter that joins, by its folder's name [default: the last]")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rows", type=int, default=40, help="test rows of each task")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--at-once", action="store_true", help="the three sides at the same time, where the machine is busy anyway"
    )
    parser.add_argument("--check-rows", type=int, default=8, help="rows of each task answered by both in float32 too")
    parser.add_argument("--batches", type=int, nargs="+", default=list(SIZES), help="sizes to try for the harness")
    parser.add_argument("--precision", default="", help="the harness's [default: the faster one]")
    parser.add_argument("--base", default=PACKAGED)
    return parser.parse_args()


def choose_adapters(folder: Path, new: str | None) -> tuple[GivenAdapter, list[GivenAdapter]]:
    """The adapter that joins, and those that are known."""
    found = sorted(find_adapters(folder, same_base=True), key=lambda adapter: adapter.name)
    if len(found) < 4:
        raise SystemExit(f"{folder} holds {len(found)} adapters; at least 4 are wanted")
    name = new or found[-1].name
    if not (joins := [a for a in found if a.name == name]):
        raise SystemExit(f"{folder} holds no adapter {name}, but {', '.join(a.name for a in found)}")
    return joins[0], [a for a in found if a.name != name]


def profiled(work: Path, base: str, known: Sequence[GivenAdapter], tasks: Sequence[Task]) -> Path:
    """A folder with the registry in which the `known` adapters are profiled on `tasks`."""
    folder = work / "known"
    folder.mkdir(parents=True, exist_ok=True)
    suite = Suite(name="known", base_model=base, engine="transformers", adapters=tuple(known), tasks=tuple(tasks))
    start = time.process_time()
    with Registry.create(folder / REGISTRY) as store:
        if store.latest_profile() is None:
            profile(suite, store, work / "runs")
            spent = time.process_time() - start
            console.print(f"profiled base and {len(known)} adapters in {spent:.0f} s of a processor", highlight=False)
    return folder


def run(job: Job, work: Path, before: Path, *, keep: str) -> Done:
    """Do a job in a process of its own, on a copy of the registry in WORK/`keep`."""
    folder = work / keep
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)
    told, result = folder / "job.json", folder / "result.json"
    started = time.time()
    told.write_text(json.dumps({**job, "registry": str(folder / REGISTRY), "started": started}))
    with (folder / "log").open("w") as log:
        # A session of its own has a share of its own of a busy machine.
        process = subprocess.Popen(
            [sys.executable, str(ONE_ROW), str(told), str(result)], stdout=log, stderr=log, start_new_session=True
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    whole = {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.time() - started}
    if process.returncode:
        raise SystemExit(f"{keep} ended with {process.returncode}:\n{(folder / 'log').read_text()[-3000:]}")
    done = json.loads(result.read_text())
    loaded = done.get("loaded", whole)
    row = {clock: whole[clock] - loaded[clock] for clock in whole}
    return Done(done, {"load": loaded, "row": row, "all": whole})


def tuned(shared: Job, given: argparse.Namespace) -> Job:
    """The harness's fastest batch size, and its fastest precision with that."""
    some: Job = {**shared, "side": "harness", "tasks": shared["tasks"][::TUNED_ON]}
    tried: dict[tuple[str, int], float] = {}

    def cost(precision: str, batch: int) -> float:
        if (precision, batch) not in tried:
            done = run(
                {**some, "precision": precision, "batch": batch},
                given.work,
                given.work / "harness-tasks",
                keep="tuning",
            )
            tried[precision, batch] = done.cost("row")
        return tried[precision, batch]

    first = given.precision or "bfloat16"
    sizes = given.batches
    batch = sizes[0] if len(sizes) == 1 else min(sizes, key=lambda size: cost(first, size))
    precision = given.precision or min(("bfloat16", "float32"), key=lambda each: cost(each, batch))
    shown = ", ".join(f"{p} {b}: {s:.1f} s" for (p, b), s in tried.items())
    console.print(f"the harness has batches of {batch} in {precision} ({shown})", highlight=False)
    return {"side": "harness", "precision": precision, "batch": batch}


def _shown(done: Done) -> str:
    cpu = ", ".join(f"{stage} {done.cost(stage):.1f}" for stage in done.seconds)
    return f"{cpu} s of a processor; {done.cost(clock='wall'):.1f} s"


def report(runs: dict[str, list[Done]]) -> None:
    """Print the median cost of each side, and how many times cheaper ours is than the harness, with its range."""
    names = {"harness": "lm-evaluation-harness", "full": "ours, full row", "part": "ours, as decisions need it"}
    title = "seconds of a processor, medians; times cheaper than the harness (least to most over the runs)"
    table = Table(title=title, title_justify="left")
    for column in ("", "runs", "start and load", "row", "together", "times: row", "times: together", "wall"):
        table.add_column(column, justify="right" if column else "left")
    for side, name in names.items():
        costs = [f"{_median(runs[side], stage):.1f}" for stage in ("load", "row", "all")]
        times = ["", ""] if side == "harness" else [_times(runs["harness"], runs[side], s) for s in ("row", "all")]
        table.add_row(name, str(len(runs[side])), *costs, *times, f"{_median(runs[side], 'all', 'wall'):.1f}")
    console.print(table)


def _median(runs: Sequence[Done], stage: str, clock: str = "cpu") -> float:
    return float(np.median([run.cost(stage, clock) for run in runs]))


def _times(theirs: Sequence[Done], ours: Sequence[Done], stage: str) -> str:
    a, b = ([run.cost(stage) for run in runs] for runs in (theirs, ours))
    return f"{np.median(a) / np.median(b):.1f} ({min(a) / max(b):.1f} to {max(a) / min(b):.1f})"


def score_table(tasks: Sequence[Task], cells: dict[str, Cell], texts: Texts, part: dict[str, Any]) -> Table:
    """Each task's score by both, how many answers are the same to the character, and the estimate of the short way."""
    table = Table(title="mean scores, both judged by the task's metric", title_justify="left")
    for column in ("task", "rows", "harness", "ours", "same text", "same score", "asked in part", "gain, full", "part"):
        table.add_column(column, justify="left" if column == "task" else "right")
    totals = np.zeros(4)
    full = {task.name: task.scores(cells[task.name].outcomes) for task in tasks}
    for i, task in enumerate(tasks):
        theirs = judged(task, texts[task.name])
        same_text = same_texts(task, texts[task.name], cells)
        same_score = theirs == full[task.name]
        base = part["base"][i]
        table.add_row(
            task.name,
            str(len(theirs)),
            f"{theirs.mean():.3f}",
            f"{full[task.name].mean():.3f}",
            str(same_text.sum()),
            str(same_score.sum()),
            str(part["examples"][i]),
            f"{full[task.name].mean() - base:+.3f}",
            f"{part['gains'][i]:+.3f} ± {part['errors'][i]:.3f}",
        )
        totals += [len(theirs), same_text.sum(), same_score.sum(), part["examples"][i]]
    table.add_row("all", f"{totals[0]:.0f}", "", "", *(f"{n:.0f}" for n in totals[1:]), "", "")
    return table


def judged(task: Task, texts: Sequence[str]) -> NDArray[np.float64]:
    """The score of each text on the task's first rows."""
    return np.array([v.score for v in task.judge(texts, task.test_examples[: len(texts)])], np.float64)


def same_texts(task: Task, texts: Sequence[str], cells: dict[str, Cell]) -> NDArray[np.bool_]:
    """Whether each text is the answer of our cell, as outcomes hold it."""
    from traitroute.profiling.matrix.measure import text_digest

    digests = np.array([text_digest(task.metric.compared(text)) for text in texts], np.uint64)
    return digests == cells[task.name].outcomes.output_digest


def floor(tasks: Sequence[Task], texts: Texts, base: Path) -> str:
    """What has to go through the model once, whoever measures."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(base)
    asked = [example.messages for task in tasks for example in task.test_examples]
    read = sum(len(tokens.apply_chat_template(m, add_generation_prompt=True, return_dict=False)) for m in asked)
    written = sum(len(tokens(text).input_ids) + 1 for task in tasks for text in texts[task.name])
    return f"the floor: {read:,} tokens of prompts and {written:,} written, once each through the model"


def check_equal(shared: Job, best: Job, given: argparse.Namespace, before: Path, tasks: Sequence[Task]) -> None:
    """Let both answer some rows in float32, where rounding does not part them, and print how many answers are equal."""
    few: Job = {**shared, "precision": "float32", "limit": given.check_rows}
    theirs: Texts = run({**best, **few}, given.work, before, keep="check").result["texts"]
    ours: Texts = run({**few, "side": "answers"}, given.work, given.work / "full", keep="check").result["texts"]
    pairs = [(a, b) for task in tasks for a, b in zip(theirs[task.name], ours[task.name], strict=True)]
    same = sum(a == b for a, b in pairs)
    console.print(f"in float32 {same} of {len(pairs)} answers are the same to the character", highlight=False)
    for a, b in [pair for pair in pairs if pair[0] != pair[1]][:3]:
        console.print(f"  harness {a!r}\n  ours    {b!r}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
