"""`traitroute profile`: train, measure, fit, record."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..adapters import InputError, Method, Registry
from .options import DEFAULT_REGISTRY, RegistryPath, console, warn
from .tables import show_profile


def profile(
    suite: Annotated[
        str | None,
        typer.Argument(help="A suite file, or a built-in suite: mini, paper-local, paper."),
    ] = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder of `TASK/{train,test}.jsonl`: the rows of a suite's local tasks, or with "
            "--sources all there is."
        ),
    ] = None,
    sources: Annotated[str, typer.Option(help="With --data: tasks to train an adapter on, comma-separated.")] = "",
    targets: Annotated[str, typer.Option(help="With --data: further tasks that are only measured.")] = "",
    train: Annotated[
        int | None,
        typer.Option(min=1, help="Training rows per source [default: the suite's, or 200]."),
    ] = None,
    test: Annotated[int | None, typer.Option(min=1, help="Test rows per task [default: the suite's, or 100].")] = None,
    tasks: Annotated[str, typer.Option(help="Only these tasks of the suite, comma-separated.")] = "",
    method: Annotated[
        Method | None,
        typer.Option(help="PEFT method, instead of the suite's; vLLM serves lora and rslora."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training, instead of the suite's.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: a Hub id or a folder, instead of the suite's.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, transformers or vllm, instead of the suite's.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Where training runs are kept, to resume them.")] = None,
) -> None:
    """Train one adapter per source task, measure all on all tasks, fit traits, write the registry.

    A killed run goes on where it was: run the same command again.

    Examples:

        traitroute profile mini

        traitroute profile paper-local --data my_tasks --train 128 --test 40

        traitroute profile --data my_tasks --sources gsm8k,mnli --targets boolq --train 400
    """
    from ..profiling import folder_suite, load_suite
    from ..profiling.profile import prepare, profile_prepared

    if suite is None and data is None:
        raise InputError("give a suite (`traitroute profile mini`), or --data FOLDER --sources ...")
    if suite is not None and (sources or targets):
        raise InputError("--sources and --targets go without a suite; a suite names its own tasks")
    if suite is None and not sources:
        raise InputError("--data needs --sources: name at least two tasks to train adapters on")
    if engine not in (None, "auto", "transformers", "vllm"):
        raise InputError(f"--engine is auto, transformers or vllm, not {engine!r}")
    if suite is None:
        chosen = folder_suite(data or Path(), _names(sources), _names(targets))
    else:
        chosen = load_suite(suite) if data is None else load_suite(suite).over(data)
    chosen = chosen.altered(tasks=_names(tasks), train=train, test=test, base_model=base, method=method, seed=seed)
    prepared = prepare(chosen, warn=warn)
    with Registry.create(registry) as store, progress_bars() as progress:
        result = profile_prepared(prepared, store, runs or registry.beside(".runs"), engine=engine, progress=progress)
    show_profile(result, console)
    console.print(f"registry: {registry}, profile version {result.version}")


def progress_bars() -> Progress:
    """The progress bars of long work."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
