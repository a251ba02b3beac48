"""`traitroute tasks`: a new task, measured for every adapter of the profile."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..adapters import Adapter, AdapterState, InputError, Registry
from .options import DEFAULT_REGISTRY, Concurrency, RegistryPath, ServerKey, console, warn
from .profile import progress_bars
from .secrets import secret

if TYPE_CHECKING:
    from ..profiling import BaseModelFolder, Task
    from ..profiling.matrix.column import MeasuredColumns
    from ..profiling.matrix.profiled import Profiled
    from ..serving.engines import Engine

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
            help="A task's folder of {train,test}.jsonl, or a suite, of which the tasks that are not profiled are added.",
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
) -> None:
    """Measure the base model and every adapter of the profile on a new task, and fit the profile with it.

    Nothing else is measured, and no adapter is trained. A killed run goes on where it was: run the same command again.

    Examples:

        traitroute tasks add my_tasks/sums

        traitroute tasks add suite.yaml --server http://localhost:8000
    """
    from ..profiling.base_model import open_base_model
    from ..profiling.matrix.column import check_new, measure_columns
    from ..profiling.matrix.profiled import Profiled
    from ..profiling.profile import quiet_libraries
    from ..profiling.row_lengths import fit_tests
    from ..profiling.tasks.task import data_warnings
    from ..serving.engines import open_engine

    if engine not in ("auto", "transformers", "vllm"):
        raise InputError(f"--engine is auto, transformers or vllm, not {engine!r}")
    quiet_libraries()
    with Registry.open(registry) as store:
        profiled = Profiled.open(store)
        new = _tasks(place, names, test, profiled)
        check_new(new, profiled, store)
        adapters = [a for a in store.adapters() if a.name in profiled.summary["adapters"]]
        if server is not None:
            _check_served(adapters)
        base = open_base_model(profiled.summary["base_model"])
        new, warnings = fit_tests(new, base)
        warnings = [*data_warnings(new), *warnings]
        for said in warnings:
            warn(said)
        meter = (
            closing(open_engine(engine, base.path, store.weights, adapters))
            if server is None
            else _on_server(server, secret("--api-key-env", api_key_env), concurrency, base, store)
        )
        with meter as opened, progress_bars() as progress:
            bar = progress.add_task("measure cells", total=None)
            found = measure_columns(
                new,
                opened,
                store,
                base,
                share=share,
                on_cell=lambda done, of: progress.update(bar, completed=done, total=of),
                warnings=warnings,
            )
            progress.update(bar, visible=False)
    _show(new, found)


def _tasks(place: str, names: str, test: int | None, profiled: "Profiled") -> "list[Task]":
    """The tasks that `place` holds and the profile lacks.

    Raises:
        InputError: there is none.
    """
    from ..profiling.tasks.suite import infer_task, load_suite

    known = profiled.summary["tasks"]
    folder = Path(place)
    if folder.is_dir():
        folder = folder.resolve()
        # An adapter that says it was trained on this task is at home there.
        found = [infer_task(folder.parent, folder.name, source=True, train=200, test=test or 100)]
    else:
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        suite = load_suite(place)
        if lost := [name for name in wanted if name not in (t.name for t in suite.tasks)]:
            has = [t.name for t in suite.tasks]
            raise InputError(f"suite {suite.name} has no task {lost[0]!r}; it has {has}")
        found = [t for t in suite.tasks if (t.name in wanted if wanted else t.name not in known)]
        if not found:
            raise InputError(f"every task of suite {suite.name} is profiled already")
        if test is not None:
            found = [t.model_copy(update={"test": test}) for t in found]
    return found


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
    from ..profiling.jobs.pending import served_name
    from ..serving.engines.completions import CompletionsClient
    from ..serving.engines.openai import OpenAIEngine

    with CompletionsClient(url, api_key=key) as client:
        yield OpenAIEngine(client, base.path, concurrency=concurrency, address=lambda a: served_name(store, a))


def _show(tasks: "Sequence[Task]", found: "MeasuredColumns") -> None:
    table = Table()
    for column in ("task", "base", "best adapter", "gain", "adapters that gain"):
        table.add_column(column, justify="left" if column in ("task", "best adapter") else "right")
    for i, task in enumerate(tasks):
        base = next(c.score for c in found.cells if c.adapter is None and c.task == task.name)
        gains = {c.adapter: c.score - base for c in found.cells if c.adapter and c.task == task.name}
        gains |= {name: float(row.gains[i]) for name, row in found.estimates.items()}
        best = max(gains, key=lambda name: gains[name])
        helped = sum(gain > 0 for gain in gains.values())
        table.add_row(task.name, f"{base:.2f}", best, f"{gains[best]:+.2f}", f"{helped} of {len(gains)}")
    console.print(table)
    if found.gone:
        console.print(
            f"their weights are gone, and so are their rows: {', '.join(found.gone)}",
            soft_wrap=True,
        )
    console.print(f"{found.examples} answers in {found.seconds:.0f} s; profile version {found.version}")
