"""`traitroute matrix`: any measured quantity, for base and every adapter on every task."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from ..adapters import Outcomes, Registry, RegistryError
from .options import DEFAULT_REGISTRY, RegistryPath, console


class Shown(StrEnum):
    """The quantities that cells keep per example."""

    STRICT = "strict"
    LENIENT = "lenient"
    UNPARSED = "unparsed"
    LIKELIHOOD = "likelihood"
    TOKENS = "tokens"
    CUT = "cut"


_QUANTITIES: dict[Shown, tuple[str, str, Callable[[Outcomes], float]]] = {
    Shown.STRICT: ("% strictly correct", ".0f", lambda o: 100 * o.strict.mean()),
    Shown.LENIENT: ("% leniently correct", ".0f", lambda o: 100 * o.lenient.mean()),
    Shown.UNPARSED: ("% without an answer found", ".0f", lambda o: 100 * o.parse_failure.mean()),
    Shown.LIKELIHOOD: (
        "log-likelihood per token of the gold answer",
        ".2f",
        lambda o: o.log_likelihood.sum() / o.target_tokens.sum(),
    ),
    Shown.TOKENS: ("mean output tokens", ".0f", lambda o: o.output_tokens.mean()),
    Shown.CUT: ("% cut at the token limit", ".0f", lambda o: 100 * o.finish_reason.mean()),
}


def matrix(
    registry: RegistryPath = DEFAULT_REGISTRY,
    show: Annotated[list[Shown] | None, typer.Option(help="What to show; repeatable.")] = None,
) -> None:
    """Print what was measured, for base and every adapter on every task.

    Example:

        traitroute matrix --show lenient --show tokens
    """
    with Registry.open(registry, read_only=True) as store:
        profile = store.latest_profile()
        if profile is None:
            raise RegistryError(f"{registry} holds no profile yet: run `traitroute profile`")
        measured = store.cells(keys=profile.summary["cells"])
    cells = {(c.adapter, c.task): c.outcomes for c in measured}
    estimated = profile.summary.get("estimated", {})
    whole = [name for name in profile.summary["adapters"] if name not in estimated]
    for shown in show or [Shown.STRICT]:
        title, form, quantity = _QUANTITIES[shown]
        table = Table(title=title, title_justify="left")
        table.add_column("adapter \\ task", overflow="fold")
        for task in profile.summary["tasks"]:
            table.add_column(task, justify="right", overflow="fold")
        for name in (None, *whole):
            row = (quantity(cells[name, task]) for task in profile.summary["tasks"])
            table.add_row(name or "base", *(format(value, form) for value in row))
        console.print(table)
    if estimated:
        console.print(
            f"not shown, since only a part of each row was measured: {', '.join(estimated)}; "
            "`traitroute adapters show NAME` has the estimates"
        )
