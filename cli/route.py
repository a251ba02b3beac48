"""`traitroute route`: ask which adapter a request needs."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..adapters import InputError, Registry
from ..router import Router, RoutingDecision
from .options import DEFAULT_REGISTRY, RegistryPath

if TYPE_CHECKING:
    from rich.table import Table


def route(
    text: Annotated[str, typer.Argument(help="The request text; - reads standard input.")],
    registry: RegistryPath = DEFAULT_REGISTRY,
    explain: Annotated[bool, typer.Option("--explain", help="Show ranking and reasons.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the whole decision as JSON.")] = False,
) -> None:
    """Say which adapter a request needs, or `base`, without running any model.

    Example:

        traitroute route "Is this review positive or negative? I loved it." --explain
    """
    request = _standard_input() if text == "-" else text
    with Registry.open(registry, read_only=True) as store:
        decision = Router.from_registry(store).route(request, explain=explain or json)
    if json:
        typer.echo(decision.model_dump_json(indent=2))
        return
    typer.echo(decision.adapter or "base")
    if explain:
        _explain(decision)


def _explain(decision: RoutingDecision) -> None:
    # Imported here: rich takes a third of the time that a decision without an explanation takes.
    from .console import console, say

    say(decision.reason)
    if not decision.ranking:
        return
    console.print(_ranking(decision))
    parts = " ".join(f"{name} {value:+.3f}" for name, value in decision.contributions.items())
    near = ", ".join(f"{n.task} {n.similarity:.2f}" for n in decision.nearest_tasks)
    console.print(f"predicted gain of the best = {parts}")
    if "training prompts" not in decision.contributions:
        console.print(f"what {decision.ranking[0].adapter} was trained on is not known: no part is evidence from it")
    console.print(f"most like: {near}")
    if (change := decision.change) is not None:
        console.print(
            f"{change.adapter or 'base'} would be chosen were {change.part} of the demand "
            f"{change.needed:+.3f} instead of {change.demand:+.3f}"
        )


def _ranking(decision: RoutingDecision) -> "Table":
    """The ranking of a decision, base in its place."""
    from rich.table import Table

    table = Table("adapter", "predicted gain", "interval")
    rows = [(a.gain, a.adapter, f"[{a.low:+.2f}, {a.high:+.2f}]") for a in decision.ranking]
    for gain, name, interval in sorted([*rows, (0.0, "base", "")], key=lambda r: -r[0]):
        chosen = name == (decision.adapter or "base")
        table.add_row(name, f"{gain:+.3f}", interval, style="bold green" if chosen else "")
    return table


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as exc:
        raise InputError(f"standard input is not {exc.encoding} text: {exc.reason}") from exc
