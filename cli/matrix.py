"""`traitroute matrix` and `traits`: what was measured, and its components."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from ..adapters import InputError, Outcomes, ProfileSummary, Registry, StoredProfile
from .console import console, show_matrix
from .options import DEFAULT_REGISTRY, RegistryPath, newest_profile


class Shown(StrEnum):
    """The score that routes, and the quantities that cells keep per example."""

    SCORE = "score"
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
        summary = newest_profile(store).summary
        measured = store.cells(keys=summary.cells)
    cells = {(c.adapter, c.task): c.outcomes for c in measured}
    adapters = (None, *summary.whole)
    for shown in show or [Shown.SCORE]:
        if shown is Shown.SCORE:
            title, form = "mean score that each task routes by, %", ".0f"
            kept = np.isin(summary.adapters, summary.whole)
            values = 100 * np.vstack([summary.base, summary.scores[kept]])
        else:
            title, form, quantity = _QUANTITIES[shown]
            values = np.array([[quantity(cells[name, task]) for task in summary.tasks] for name in adapters])
        rows = {
            name or "base": [format(value, form) for value in row] for name, row in zip(adapters, values, strict=True)
        }
        show_matrix(title, rows, summary.tasks)
    if estimated := summary.estimated.adapters:
        console.print(
            f"not shown, since only a part of each row was measured: {', '.join(estimated)}; "
            "`traitroute adapters show NAME` has the estimates"
        )


_STRONGEST = 3
_PROJECTED = 8
"""Adapters are shown on so many components, as many as a line of a terminal holds."""


def traits(
    registry: RegistryPath = DEFAULT_REGISTRY,
    label: Annotated[
        list[str] | None, typer.Option(help="Call a component by a name of your own: 1=NAME; 1= removes it.")
    ] = None,
) -> None:
    """Print the traits of the newest profile, and where they place each adapter; or label them.

    Labels stay with their traits when a later profile of the same tasks finds these again.

    Examples:

        traitroute traits --registry traitroute.db

        traitroute traits --label 1="stops early"
    """
    labels = [_parse_label(each) for each in label or ()]
    with Registry.open(registry, read_only=not labels) as store:
        stored = newest_profile(store)
        for index, text in labels:
            store.set_trait_label(stored.version, index, text)
            done = f"is called {text.strip()!r}" if text.strip() else "has no label"
            line = f"component {index} of profile version {stored.version} {done}"
            console.print(line, markup=False, highlight=False)
    if not labels:
        _show_traits(stored)


def _parse_label(label: str) -> tuple[int, str]:
    index, equals, text = label.partition("=")
    if not equals or not index.strip().isdecimal():
        raise InputError(f'--label is COMPONENT=NAME, such as 1="stops early", not {label!r}')
    return int(index), text


def _show_traits(stored: StoredProfile) -> None:
    traits = stored.summary.traits
    console.print(_components(stored.version, stored.summary))
    console.print(_projections(stored.summary))
    for i, name in enumerate(traits.names[: traits.n_traits], start=1):
        console.print(f"{i}: {name.name}. {name.evidence}", markup=False, highlight=False)
    console.print(
        f"traits claimed: {traits.claimed or 'none'} (leading components whose share exceeds the null)\n"
        "stability: median |cosine| of a component with its match among resampled test examples, and "
        f"resampled adapters (by chance {traits.by_examples.chance:.2f}).",
        highlight=False,
    )


def _components(version: int, summary: ProfileSummary) -> Table:
    traits = summary.traits
    table = Table(
        title=f"components of the gains (profile version {version}, {traits.scaling} gains)", title_justify="left"
    )
    for column in ("", "variance", "95% of null", "p", "stability"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("name", "label", "strongest loadings"):
        table.add_column(column, overflow="fold")
    for i, loadings in enumerate(traits.loadings):
        table.add_row(
            f"{i + 1}",
            f"{100 * traits.explained_variance[i]:.1f}%",
            f"{100 * traits.null[i]:.1f}%",
            f"{traits.p_values[i]:.3f}",
            f"{traits.by_examples.median[i]:.2f}, {traits.by_adapters.median[i]:.2f}",
            escape(traits.names[i].name),
            escape(traits.label(i) or ""),
            _strongest(loadings.tolist(), summary.tasks),
            style="" if i < traits.claimed else "dim",
        )
    return table


def _projections(summary: ProfileSummary) -> Table:
    shown = min(_PROJECTED, len(summary.traits))
    table = Table(title=f"trait scores of the adapters (first {shown} components)", title_justify="left")
    table.add_column("adapter", overflow="fold")
    for i in range(shown):
        table.add_column(escape(summary.traits.label(i) or f"{i + 1}"), justify="right", overflow="fold")
    for adapter, scores in zip(summary.adapters, summary.trait_scores, strict=True):
        table.add_row(adapter, *(f"{score:+.2f}" for score in scores[:shown]))
    return table


def _strongest(loadings: Sequence[float], tasks: Sequence[str]) -> str:
    order = sorted(range(len(tasks)), key=lambda j: -abs(loadings[j]))[:_STRONGEST]
    return ", ".join(f"{tasks[j]} {loadings[j]:+.2f}" for j in order)
