"""`traitroute tasks`: measure a new task for every adapter, and make tasks of a log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ..adapters import Adapter, AdapterState, InputError, Registry
from .console import console, progress_bars, say, warn
from .options import DEFAULT_REGISTRY, Concurrency, On, RegistryPath, ServerKey, engine_name, judge_of, secret
from .options import names as listed

if TYPE_CHECKING:
    from ..profiling import BaseModelFolder, Task
    from ..profiling.column import MeasuredColumns
    from ..profiling.matrix.profiled import Profiled
    from ..profiling.tasks.sources import Split
    from ..serving.engines import Engine

SHOWN_CHARS = 72
"""Of each example of a task from a log."""

LONG_LOG = 32 * 2**20
"""Reading so much takes a second or two."""

app = typer.Typer(no_args_is_help=True, help="Add tasks to the profile.")


@app.callback()
def tasks() -> None:
    """Add tasks to the profile."""


@app.command("add")
def add(
    place: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|SUITE",
            help="A task's folder of {train,test}.jsonl, or a suite, of which the tasks that are not profiled are "
            "added.",
            show_default=False,
        ),
    ],
    registry: RegistryPath = DEFAULT_REGISTRY,
    names: Annotated[str, typer.Option("--tasks", help="Only these tasks of the suite, comma-separated.")] = "",
    test: Annotated[int | None, typer.Option(min=1, help="Test rows [default: the suite's, or 100].")] = None,
    share: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="The largest share of the examples that is measured of adapters whose own row was measured in part.",
        ),
    ] = 0.1,
    engine: Annotated[str, typer.Option(help="auto, transformers or vllm.")] = "auto",
    server: Annotated[
        str | None,
        typer.Option(help="URL of a running server of the registry's adapters: measure there, at its lowest priority."),
    ] = None,
    api_key_env: ServerKey = None,
    concurrency: Concurrency = 4,
    on: On = "local",
) -> None:
    """Measure the base model and every adapter of the profile on a new task, and fit the profile with it.

    Nothing else is measured, and no adapter is trained. A killed run goes on where it was: run the same command again.

    Examples:

        traitroute tasks add my_tasks/sums

        traitroute tasks add suite.yaml --server http://localhost:8000

        traitroute tasks add suite.yaml --on local:2
    """
    from ..profiling.base_model import open_base_files, open_base_model
    from ..profiling.column import check_new, measure_columns
    from ..profiling.execution.places import check_place, open_executor
    from ..profiling.matrix.profiled import Profiled
    from ..profiling.matrix.spread import measuring
    from ..profiling.profile import quiet_libraries
    from ..profiling.row_lengths import fit_tests
    from ..profiling.tasks.task import data_warnings

    chosen = engine_name(engine)
    check_place(on)
    if server is not None and on != "local":
        raise InputError("--on says who measures, and with --server that is the server: leave one of them out")
    quiet_libraries()
    with Registry.open(registry) as store:
        profiled = Profiled.open(store)
        new = _tasks(place, names, test, profiled)
        check_new(new, profiled, store)
        adapters = [a for a in store.adapters() if a.name in profiled.summary.adapters]
        if server is not None:
            _check_served(adapters)
        name = profiled.summary.base_model
        base = open_base_model(name) if server is None else open_base_files(name, store.base_models())
        new, warnings = fit_tests(new, base)
        warnings = [*data_warnings(new), *warnings]
        for warning in warnings:
            warn(warning)
        with open_executor(on, warn=warn) as executor, progress_bars() as progress:
            bar = progress.add_task("measure cells", total=None)
            weights = profiled.summary.weights
            rows = [
                (None, new),
                *((a, new) for a in adapters if a.name in profiled.whole and weights[a.name] == a.weights_digest),
            ]
            engine_there = (
                measuring(
                    chosen,
                    base,
                    store,
                    adapters,
                    rows,
                    executor,
                    on_cells=lambda done: progress.update(bar, completed=done, total=len(rows) * len(new)),
                )
                if server is None
                else _on_server(server, secret("--api-key-env", api_key_env), concurrency, base, store)
            )
            with engine_there as opened:
                columns = measure_columns(
                    new,
                    opened,
                    store,
                    base,
                    share=share,
                    on_cell=lambda done, of: progress.update(bar, completed=done, total=of),
                    warnings=warnings,
                )
            progress.update(bar, visible=False)
    _show(new, columns)


@app.command("from-log")
def from_log(
    file: Annotated[
        Path,
        typer.Argument(
            help="The log: a JSON object a line, an array of them, or a .csv table, as OpenAI's API, LiteLLM and "
            "Langfuse have them, or vLLM's own log at level DEBUG.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The new folder of the suite and its rows [default: FILE's name, -tasks].")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows a task, of distinct requests.")] = 100,
    fewest: Annotated[int, typer.Option(min=2, help="Templates of fewer requests are no tasks.")] = 20,
    most: Annotated[int, typer.Option(min=1, help="So many tasks at most, of the most frequent templates.")] = 40,
    sample: Annotated[
        int, typer.Option(min=100, help="Requests of the log that are grouped, drawn by --seed.")
    ] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Who judges what no format tells, when the tasks are measured: a model at --judge-url. It is not "
            "asked here.",
        ),
    ] = None,
    judge_url: Annotated[str | None, typer.Option(help="The judge's OpenAI-compatible server.")] = None,
    judge_key_env: Annotated[str | None, typer.Option(help="Environment variable with the judge's API key.")] = None,
) -> None:
    """Make tasks of a log of chat requests: those made from one template are one task.

    Writes a suite and a folder of rows a task, with three examples of each to name it by. Nothing is sent anywhere;
    what is written holds what users wrote, and is readable by its owner only. The tasks have no right answers: the
    suite says what each is judged by.

    Example:

        traitroute tasks from-log requests.jsonl --out our_tasks
    """
    from ..profiling.tasks.from_log import JUDGED, SUITE, ends, first_fault, tasks_from_log

    out = out or Path(f"{file.stem}-tasks")
    judged = judge_of(judge, judge_url, judge_key_env)
    options = {"rows": rows, "fewest": fewest, "most": most, "seed": seed, "sample": sample}
    # It is read twice: once to group its requests, once for the rows that were chosen.
    size = 2 * file.stat().st_size if file.is_file() else 0
    with progress_bars() if size > LONG_LOG else Progress(disable=True) as progress:
        bar = progress.add_task("read the log twice", total=1.0)
        tasks, reading = tasks_from_log(
            file, out, **options, judge=judged, on_bytes=lambda read: progress.advance(bar, read / size)
        )
        progress.update(bar, completed=1.0)
    if fault := first_fault(reading):
        warn(f"of {reading.entries} entries {fault}")
    if reading.too_long:
        warn(f"{reading.too_long} requests were left out: longer than any adapter answers")
    table = Table()
    for column in ("task", "requests", "rows", "judged by", "examples"):
        table.add_column(column, justify="right" if column in ("requests", "rows") else "left")
    for task in tasks:
        examples = "\n".join(ends(text, SHOWN_CHARS) for text in task.examples)
        table.add_row(task.name, str(task.count), str(task.rows), JUDGED[task.judged].short, escape(examples))
    console.print(table)
    held = sum(task.count for task in tasks)
    say(f"{reading.requests} requests in {reading.entries} entries; {held} of them in {len(tasks)} tasks")
    say(f"written: {out / SUITE} and a folder a task beside it, with users' texts, for you to read only (mode 0600)")
    say("nothing was sent. Name the tasks as you like, then measure your adapters on them:")
    say(f"  traitroute profile --adapter NAME=PLACE --targets {out / SUITE}")
    say(f"  traitroute tasks add {out / SUITE}    (to a profile that is there)")


def _tasks(place: str, names: str, test: int | None, profiled: "Profiled") -> "list[Task]":
    """The tasks that `place` holds and the profile lacks.

    Raises:
        InputError: there is none.
    """
    from ..profiling.tasks.inference import infer_task
    from ..profiling.tasks.sources import split_file
    from ..profiling.tasks.suite import load_tasks

    known = profiled.summary.tasks
    folder = Path(place)
    if folder.is_dir():
        folder = folder.resolve()
        # An adapter that says it was trained on this task is at home there.
        source = split_file(folder.parent, folder.name, "train") is not None
        splits: tuple[Split, ...] = ("train", "test") if source else ("test",)
        train = 200 if source else 0
        chosen = [infer_task(folder.parent, folder.name, source=source, train=train, test=test or 100, splits=splits)]
    else:
        wanted = listed(names)
        tasks = load_tasks(place)
        if lost := [name for name in wanted if name not in (t.name for t in tasks)]:
            has = [t.name for t in tasks]
            raise InputError(f"suite {place} has no task {lost[0]!r}; it has {has}")
        chosen = [t for t in tasks if (t.name in wanted if wanted else t.name not in known)]
        if not chosen:
            raise InputError(f"every task of suite {place} is profiled already")
        if test is not None:
            chosen = [t.model_copy(update={"test": test}) for t in chosen]
    return chosen


def _check_served(adapters: list[Adapter]) -> None:
    """Check that a server answers as each of the adapters.

    Raises:
        InputError: one is disabled.
    """
    disabled = [a.name for a in adapters if a.state is AdapterState.DISABLED]
    if disabled:
        raise InputError(
            f"no server answers as {disabled[0]}, which is disabled: enable or remove it, or measure without --server"
        )


@contextmanager
def _on_server(
    url: str, key: str | None, concurrency: int, base: "BaseModelFolder", store: Registry
) -> "Iterator[Engine]":
    from ..profiling.jobs.steps import served_name
    from ..serving.engines.completions import CompletionsClient
    from ..serving.engines.openai import OpenAIEngine

    with CompletionsClient(url, api_key=key) as client:
        yield OpenAIEngine(client, base.path, concurrency=concurrency, address=lambda a: served_name(store, a))


def _show(tasks: "Sequence[Task]", columns: "MeasuredColumns") -> None:
    table = Table()
    for column in ("task", "base", "best adapter", "gain", "adapters that gain"):
        table.add_column(column, justify="left" if column in ("task", "best adapter") else "right")
    for i, task in enumerate(tasks):
        scores = {c.adapter: float(task.scores(c.outcomes).mean()) for c in columns.cells if c.task == task.name}
        base = scores.pop(None)
        gains = {name: score - base for name, score in scores.items() if name}
        gains |= {name: float(row.gains[i]) for name, row in columns.estimates.items()}
        best = max(gains, key=lambda name: gains[name])
        helped = sum(gain > 0 for gain in gains.values())
        table.add_row(task.name, f"{base:.2f}", best, f"{gains[best]:+.2f}", f"{helped} of {len(gains)}")
    console.print(table)
    if columns.gone:
        console.print(f"their weights are gone, and so are their rows: {', '.join(columns.gone)}", soft_wrap=True)
    console.print(f"{columns.examples} answers in {columns.seconds:.0f} s; profile version {columns.version}")
