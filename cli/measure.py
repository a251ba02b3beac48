"""`traitroute adapters measure`: a pending adapter's row, measured in this process, and then it may be chosen."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..adapters import InputError, Registry
from .canary import CanaryShare, Replaces, enter, parse_share
from .console import console, progress_bars
from .options import DEFAULT_REGISTRY, RegistryPath, engine_name

if TYPE_CHECKING:
    from ..profiling.matrix.row import MeasuredRow


def measure(
    name: Annotated[str, typer.Argument(help="The adapter's name.", show_default=False)],
    registry: RegistryPath = DEFAULT_REGISTRY,
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The largest share of the row's examples that is measured.")
    ] = 0.1,
    error: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Measure no more once the gains' mean standard error is this small; 0 to use the whole share.",
        ),
    ] = 0.02,
    full: Annotated[bool, typer.Option("--full", help="Measure every example.")] = False,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="JSONL of `input` (the prompt as it was trained on) and `target`: what the adapter was trained on "
            "[default: its source task's rows, where the profile has it]."
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, transformers or vllm.")] = "auto",
    canary: CanaryShare = None,
    replaces: Replaces = None,
) -> None:
    """Measure one adapter, or the replacement that waits for its name, and let `auto` choose it.

    Only its own row is measured, on the examples that tell most; nothing is fitted again. A killed run goes on where it
    was, and a larger --share goes on from a smaller one. `traitroute worker` does the same on a running server.

    Examples:

        traitroute adapters measure polite

        traitroute adapters measure polite --canary 1%

        traitroute adapters measure polite --share 0.3 --rows polite/train.jsonl
    """
    from ..profiling.base_model import open_base_model
    from ..profiling.matrix.profiled import Profiled, read_training_rows
    from ..profiling.matrix.row import measure_row
    from ..profiling.profile import quiet_libraries
    from ..serving import open_engine

    chosen, part = engine_name(engine), None if canary is None else parse_share(canary)
    training = None if rows is None else read_training_rows(rows)
    quiet_libraries()
    with Registry.open(registry) as store:
        if part is not None and store.replacement(name) is not None:
            raise InputError(
                f"a replacement of {name} takes its name over whole: add the new weights under a name of their own, "
                f"with --canary and --replaces {name}"
            )
        # Before it is ready, so that no server gives it more.
        enter(store, name, part, replaces)
        adapter = store.replacement(name) or store.adapter(name)
        base = open_base_model(Profiled.open(store).summary.base_model)
        opened = open_engine(chosen, base.path, store.weights, [adapter])
        with closing(opened), progress_bars() as progress:
            bar = progress.add_task(f"measure {name}", total=None)
            measured = measure_row(
                adapter,
                opened,
                store,
                base,
                share=share,
                full=full,
                tolerance=error,
                training=training,
                on_examples=lambda done, of: progress.update(bar, completed=done, total=of),
            )
            progress.update(bar, visible=False)
        state = store.adapter(name).state
    _show(name, measured, state)


def _show(name: str, measured: "MeasuredRow", state: str) -> None:
    table = Table()
    for column in ("task", "gain", "standard error", "examples"):
        table.add_column(column, justify="left" if column == "task" else "right")
    row = measured.row
    for task, gain, sure, n in zip(row.tasks, row.gains, row.errors, row.examples, strict=True):
        table.add_row(task, f"{gain:+.2f}", f"{sure:.2f}", str(n))
    console.print(table)
    console.print(
        f"{name}: {row.examples.sum()} of {measured.size} examples ({measured.share:.0%}) in {measured.seconds:.0f} s, "
        f"mean standard error {row.errors.mean():.3f}; profile version {measured.version}, now {state}"
    )
