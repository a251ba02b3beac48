"""`traitroute adapters`: what the registry holds, and how that is changed."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..adapters import Registry
from . import arrivals, measure, upkeep
from .card import adapter_card, write_card
from .options import DEFAULT_REGISTRY, RegistryPath, console

app = typer.Typer(no_args_is_help=True, help="List, add, replace and remove adapters.")
app.command("add")(arrivals.add)
app.command("replace")(arrivals.replace)
app.command("withdraw")(arrivals.withdraw)
app.command("remove")(upkeep.remove)
app.command("disable")(upkeep.disable)
app.command("enable")(upkeep.enable)
app.command("tag")(upkeep.tag)
app.command("measure")(measure.measure)


@app.command("list")
def list_adapters(registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """List every adapter with its state, method, rank and digest.

    Example:

        traitroute adapters list --registry traitroute.db
    """
    table = Table()
    for column in ("name", "state", "method", "rank", "base model", "weights"):
        table.add_column(column)
    with Registry.open(registry, read_only=True) as store:
        for a in store.adapters():
            rank, weights = str(a.rank), a.weights_digest[:12]
            table.add_row(a.name, a.state, a.method, rank, a.base_model, weights)
        waiting = store.replacements()
    console.print(table)
    for new in waiting:
        console.print(f"{new.name} version {new.version} waits to be measured, then replaces it")


@app.command("show")
def show_adapter(
    name: Annotated[str, typer.Argument(help="The adapter's name.")],
    registry: RegistryPath = DEFAULT_REGISTRY,
    card: Annotated[
        bool, typer.Option("--card", help="Print its skill card: Markdown with the Hub's metadata.")
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(help="With --card: write it as README.md into this folder of weights."),
    ] = None,
) -> None:
    """Show one adapter with its measured gains on every task.

    Example:

        traitroute adapters show sentiment3
        traitroute adapters show sentiment3 --card --write runs/sentiment3
    """
    with Registry.open(registry, read_only=True) as store:
        if card or write is not None:
            text = adapter_card(store, name)
            print(text if write is None else f"wrote {write_card(text, write)}")
            return
        adapter = store.adapter(name)
        stored = store.latest_profile()
    for key, value in adapter.model_dump(mode="json").items():
        console.print(f"{key}: {value}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"vLLM serves it: {'yes' if adapter.vllm_serves else 'no, profiled only'}")
    if stored is None or name not in stored.summary["adapters"]:
        console.print("not in the matrix of a profile: measured beside it as an ablation, or not yet")
        return
    summary = stored.summary
    row = summary["adapters"].index(name)
    table = Table(title=f"measured (profile version {stored.version})", title_justify="left")
    for column in ("task", "base", "adapter", "gain"):
        table.add_column(column)
    for task, base, score in zip(summary["tasks"], summary["base"], summary["scores"][row], strict=True):
        table.add_row(task, f"{base:.2f}", f"{score:.2f}", f"{score - base:+.2f}")
    console.print(table)
