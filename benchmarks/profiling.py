"""Cells per minute of profiling, against lm-evaluation-harness evaluating one adapter per run.

    python benchmarks/profiling.py --data DATA --adapters-from RUNS                2 adapters x 3 tasks x 24 rows
    python benchmarks/profiling.py --data DATA --adapters-from RUNS --adapters 10 --tasks 10 --rows 100 --repetitions 3

DATA holds `<task>/{train,test}.jsonl`, RUNS a folder of PEFT adapters. Needs the extras `profile` and `lm-eval`.

Both sides run the same model, adapters, prompts (chat template), rows, token limits and precision (bfloat16) in this
process, with as many threads. The base model is a row of the matrix on both sides. Two kinds of cell, and of each only
what the harness computes too:

- choice: the log-likelihood of every label after the prompt; right where the gold label has the highest;
- generation: the greedy answer; right by the strict rule of the task's metric, judged by the same code for both.

The harness gets its best batch size for each kind, found before the clock starts ("auto" is tried on GPUs; on CPUs it
would fill the memory with rows of the model's full length, and end at the largest size or the end of the process).
Loading the model is on the clock for both, importing libraries and building prompts for the harness is not. Beside it
stands our `measure` as it is used, on the same cells, although it does more: choice cells are generated as well, and
gold answers scored.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from profiling.harness import KINDS, Harness, Side, Verdicts, choice_verdicts, kind_of, text_verdicts
from rich.console import Console
from rich.table import Table
from traitroute.adapters import Adapter, Registry
from traitroute.profiling import PACKAGED, BaseModelFolder, Task, measure, open_base_model
from traitroute.profiling.tasks.inference import infer_task
from traitroute.profiling.training import adapter_record
from traitroute.serving import EngineRequest, EngineResult, open_engine

console = Console(width=140)


def main() -> None:
    """Measure both sides in turn, the order changed at each repetition, and print scores and speeds."""
    arguments = _arguments()
    quiet()
    base = open_base_model(arguments.base)
    folders = adapter_folders(arguments.adapters_from, arguments.adapters)
    tasks = choose_tasks(arguments.data, arguments.tasks, arguments.rows, arguments.named)
    harness = Harness(base, tasks)
    sizes = harness.tune(folders[0], arguments.harness_batches)
    cells = (1 + len(folders)) * len(tasks)
    describe(folders, tasks, sizes)
    runs = []
    for repetition in range(arguments.repetitions):
        sides = {
            "harness": lambda: harness.run(folders, sizes),
            "ours": lambda: run_ours(base, folders, tasks),
        }
        order = list(sides) if repetition % 2 == 0 else list(sides)[::-1]
        done = {name: sides[name]() for name in order}
        runs.append((done["harness"], done["ours"], run_measure(base, folders, tasks)))
        console.print(
            f"repetition {repetition + 1}: "
            + ", ".join(f"{name} {side.total:.0f} s" for name, side in done.items())
            + f", measure {runs[-1][2]:.0f} s"
        )
    console.print(score_table(runs[-1][0].verdicts, runs[-1][1].verdicts, tasks))
    report(runs, tasks, cells)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapters-from", type=Path, required=True)
    parser.add_argument("--adapters", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--named", nargs="+", default=[], help="these tasks, in place of --tasks")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--base", default=PACKAGED)
    parser.add_argument("--harness-batches", nargs="+", default=["1", "4", "16", "64"])
    return parser.parse_args()


def quiet() -> None:
    """Keep the libraries' notices and bars out of the tables, and off the network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def adapter_folders(root: Path, count: int) -> list[Path]:
    """The first `count` finished PEFT folders of `root`, by name."""
    found = sorted(f.parent for f in root.glob("*/adapter_model.safetensors"))
    if len(found) < count:
        raise SystemExit(f"{root} holds {len(found)} PEFT adapters; --adapters {count} are wanted")
    return found[:count]


def choose_tasks(data: Path, count: int, rows: int, named: Sequence[str]) -> list[Task]:
    """The named tasks, or `count` tasks of `data` by name, kinds in turn."""
    names = named or sorted(p.name for p in data.iterdir() if (p / "test.jsonl").is_file())
    tasks = [infer_task(data, name, source=False, train=0, test=rows) for name in names]
    if named:
        return tasks
    kinds = [[t for t in tasks if kind_of(t) == kind] for kind in KINDS]
    turns = [t for t in chain.from_iterable(zip_longest(*kinds)) if t is not None]
    if len(turns) < count:
        raise SystemExit(f"{data} holds {len(turns)} tasks; --tasks {count} are wanted")
    return turns[:count]


def run_ours(base: BaseModelFolder, folders: Sequence[Path], tasks: Sequence[Task]) -> Side:
    """The same cells on our engine: likelihoods only in choice cells, answers only in the others."""
    side = Side()
    with tempfile.TemporaryDirectory() as scratch, Registry.create(Path(scratch, "r.db")) as store:
        adapters = _records(base, folders, store)
        engine = side.clock("load", lambda: open_engine("transformers", base.path, store.weights, adapters))
        for adapter in (None, *adapters):
            ready = EngineRequest(({"role": "user", "content": "?"},), adapter, 0, ("!",))
            side.clock("load", lambda ready=ready: engine.run([ready]))
            for kind in KINDS:
                cells = [(t, _requests(t, adapter)) for t in tasks if kind_of(t) == kind]
                asked = [request for _, requests in cells for request in requests]
                results = iter(side.clock(kind, lambda asked=asked: engine.run(asked)))
                for task, requests in cells:
                    rows = [next(results) for _ in requests]
                    key = (adapter.name if adapter else "base", task.name)
                    side.verdicts[key] = _verdicts(task, rows)
        engine.close()
    return side


def _records(base: BaseModelFolder, folders: Sequence[Path], store: Registry) -> list[Adapter]:
    return [adapter_record(f.name, f.name, base, store.weights.add(f)) for f in folders]


def _requests(task: Task, adapter: Adapter | None) -> list[EngineRequest]:
    choice = kind_of(task) == "choice"
    return [
        EngineRequest(
            ({"role": "user", "content": e.prompt},),
            adapter,
            max_tokens=0 if choice else task.max_tokens,
            candidates=task.labels if choice else (),
        )
        for e in task.test_examples
    ]


def _verdicts(task: Task, results: Sequence[EngineResult]) -> NDArray[np.bool_]:
    if kind_of(task) == "choice":
        return choice_verdicts(task, [r.log_likelihoods for r in results])
    return text_verdicts(task, [r.text for r in results])


def run_measure(base: BaseModelFolder, folders: Sequence[Path], tasks: Sequence[Task]) -> float:
    """Seconds of `measure` as profiling uses it, loading and the registry included."""
    with tempfile.TemporaryDirectory() as scratch, Registry.create(Path(scratch, "r.db")) as store:
        adapters = _records(base, folders, store)
        start = time.perf_counter()
        engine = open_engine("transformers", base.path, store.weights, adapters)
        measure(engine, store, base, adapters, tasks)
        engine.close()
        return time.perf_counter() - start


def describe(folders: Sequence[Path], tasks: Sequence[Task], sizes: dict[str, str]) -> None:
    """Print what is measured, on what."""
    import lm_eval
    import torch

    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    console.print(
        f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, lm_eval {lm_eval.__version__}; "
        f"base and {', '.join(f.name for f in folders)}",
        highlight=False,
    )
    for kind, size in sizes.items():
        named = ", ".join(f"{t.name} ({len(t.test_examples)})" for t in tasks if kind_of(t) == kind)
        console.print(f"{kind}: {named}; harness batch size {size}", highlight=False)


def score_table(harness: Verdicts, ours: Verdicts, tasks: Sequence[Task]) -> Table:
    """Percent strictly right by the harness and by us, and how many rows both judge alike by both rules."""
    table = Table(title="% right: harness / ours (rows judged alike)", title_justify="left")
    table.add_column("adapter \\ task", overflow="fold")
    for task in tasks:
        table.add_column(task.name, justify="right", overflow="fold")
    for adapter in dict.fromkeys(name for name, _ in harness):
        cells = [(harness[adapter, t.name], ours[adapter, t.name]) for t in tasks]
        table.add_row(
            adapter,
            *(
                f"{100 * a[:, 0].mean():.0f} / {100 * b[:, 0].mean():.0f} ({alike(a, b).sum()}/{len(a)})"
                for a, b in cells
            ),
        )
    return table


def alike(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows with the same verdict, strictly and leniently."""
    return (a == b).all(axis=1)


def report(runs: list[tuple[Side, Side, float]], tasks: Sequence[Task], cells: int) -> None:
    """Print cells a minute by kind, and the ratios with their range over the repetitions."""
    table = Table(title="cells a minute, median over repetitions", title_justify="left")
    for column in ("", "cells", "harness", "ours", "times (range)"):
        table.add_column(column, justify="right" if column else "left")
    for kind in KINDS:
        if share := sum(kind_of(t) == kind for t in tasks) * cells // len(tasks):
            seconds = [(h.seconds[kind], o.seconds[kind]) for h, o, _ in runs]
            table.add_row(f"{kind}, without loading", str(share), *_speeds(share, seconds))
    whole = [(h.total, o.total) for h, o, _ in runs]
    full = [(h.total, m) for h, _, m in runs]
    table.add_row("all, loading included", str(cells), *_speeds(cells, whole))
    table.add_row("all, ours by `measure`, which does more", str(cells), *_speeds(cells, full))
    console.print(table)
    same = [alike(h.verdicts[key], o.verdicts[key]) for h, o, _ in runs for key in h.verdicts]
    console.print(
        f"{_ratio(whole)} times the cells a minute of lm-evaluation-harness, and {_ratio(full)} times with all that "
        f"`measure` does; {100 * np.concatenate(same).mean():.1f}% of rows judged alike",
        highlight=False,
    )


def _speeds(cells: int, seconds: list[tuple[float, float]]) -> list[str]:
    sides = [f"{60 * cells / float(np.median(side)):.1f}" for side in zip(*seconds, strict=True)]
    return [*sides, _ratio(seconds)]


def _ratio(seconds: list[tuple[float, float]]) -> str:
    ratios = [harness / ours for harness, ours in seconds]
    return f"{np.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


if __name__ == "__main__":
    main()
