"""`traitroute route`: ask which adapter a request needs."""

import sys
from typing import Annotated

import typer

from ..adapters import InputError, Registry
from ..router import Router
from .options import DEFAULT_REGISTRY, RegistryPath, console


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
        from .tables import decision_table

        console.print(decision.reason, markup=False, highlight=False)
        if not decision.ranking:
            return
        console.print(decision_table(decision))
        parts = " ".join(f"{name} {value:+.3f}" for name, value in decision.contributions.items())
        near = ", ".join(f"{n.task} {n.similarity:.2f}" for n in decision.nearest_tasks)
        console.print(f"predicted gain of the best = {parts}")
        console.print(f"most like: {near}")
        if (change := decision.change) is not None:
            console.print(
                f"{change.adapter or 'base'} would be chosen were {change.part} of the demand "
                f"{change.needed:+.3f} instead of {change.demand:+.3f}"
            )


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as exc:
        raise InputError(f"standard input is not {exc.encoding} text: {exc.reason}") from exc
