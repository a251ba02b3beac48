"""`traitroute profile`: train, measure, fit, record."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..adapters import InputError, Method, Registry
from .console import console, progress_bars, say, warn
from .options import DEFAULT_REGISTRY, RegistryPath, engine_name, names

if TYPE_CHECKING:
    from ..profiling import Profile


def profile(
    suite: Annotated[
        str | None, typer.Argument(help="A suite file, or a built-in suite: mini, paper-local, paper.")
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
        int | None, typer.Option(min=1, help="Training rows per source [default: the suite's, or 200].")
    ] = None,
    test: Annotated[int | None, typer.Option(min=1, help="Test rows per task [default: the suite's, or 100].")] = None,
    tasks: Annotated[str, typer.Option(help="Only these tasks of the suite, comma-separated.")] = "",
    method: Annotated[
        Method | None, typer.Option(help="PEFT method, instead of the suite's; vLLM serves lora and rslora.")
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
    engine_given = None if engine is None else engine_name(engine)
    if suite is None:
        chosen = folder_suite(data or Path(), names(sources), names(targets))
    else:
        chosen = load_suite(suite) if data is None else load_suite(suite).over(data)
    chosen = chosen.altered(tasks=names(tasks), train=train, test=test, base_model=base, method=method, seed=seed)
    prepared = prepare(chosen, warn=warn)
    say(f"prepared: rows of suite {chosen.name}, base model {prepared.base.name}; {prepared.seconds:.0f} s")
    with Registry.create(registry) as store, progress_bars() as progress:
        result = profile_prepared(
            prepared, store, runs or registry.beside(".runs"), engine=engine_given, progress=progress
        )
    show_profile(result)
    console.print(f"registry: {registry}, profile version {result.version}")


def show_profile(result: "Profile") -> None:
    """Print matrix, traits against the null, and the time that each stage took."""
    show_matrix(result)
    show_traits(result)
    laps = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in result.seconds.items())
    reused = sum(t.reused for t in result.training)
    console.print(f"time: {laps}" + (f" ({reused} adapters reused)" if reused else ""))


def show_matrix(result: "Profile") -> None:
    """Print the mean score of base and adapters on each task, in percent; gains in green, losses in red."""
    matrix = result.matrix
    table = Table(title="transfer matrix: mean score in % (gain over base)", title_justify="left")
    table.add_column("adapter \\ task", overflow="fold")
    for task in matrix.tasks:
        table.add_column(task, justify="right", overflow="fold")
    table.add_row("base", *(f"{100 * s:.0f}" for s in matrix.base))
    for name, scores, gains in zip(matrix.adapters, matrix.scores, matrix.gains, strict=True):
        table.add_row(name, *map(_cell, scores, gains))
    console.print(table)


def show_traits(result: "Profile") -> None:
    """Print each component's share of variance beside its permutation null."""
    traits = result.traits
    table = Table(
        "component",
        "variance",
        "95% of null",
        "p",
        "trait?",
        "strongest loadings",
        title="components of the gains",
        title_justify="left",
    )
    rows = zip(traits.explained_variance_ratio_, traits.null_, traits.p_values_, strict=True)
    for i, (share, null, p) in enumerate(rows):
        order = abs(traits.components_[i]).argsort()[::-1][:3]
        loadings = ", ".join(f"{result.matrix.tasks[j]} {traits.components_[i, j]:+.2f}" for j in order)
        figures = (f"{i + 1}", f"{100 * share:.1f}%", f"{100 * null:.1f}%", f"{p:.3f}")
        table.add_row(*figures, "yes" if traits.supported_[i] else "no", loadings)
    console.print(table)
    routing = result.routing
    console.print(
        f"router: {routing.trait_scores.shape[1]} components, penalty {routing.demand.alpha:g}; "
        f"error of a task's gain: {routing.error_known:.2f} on profiled tasks, "
        f"{routing.error_new:.2f} on tasks left out"
    )


def _cell(score: float, gain: float) -> str:
    text = f"{100 * score:.0f} ({100 * gain:+.0f})"
    return f"[green]{text}[/]" if gain > 0 else f"[red]{text}[/]" if gain < 0 else text
