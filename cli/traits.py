"""`traitroute traits`: the components of the gains, how far to trust them, and what they are called."""

from itertools import takewhile
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..adapters import InputError, Registry, RegistryError, StoredProfile
from .options import DEFAULT_REGISTRY, RegistryPath, console

_STRONGEST = 3
_PROJECTED = 8
"""Adapters are shown on so many components, as many as a line of a terminal holds."""


def traits(
    registry: RegistryPath = DEFAULT_REGISTRY,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Call a component by a name of your own: 1=NAME; 1= removes it."),
    ] = None,
) -> None:
    """Print the traits of the newest profile, and where they place each adapter; or label them.

    Labels stay with their traits when a later profile of the same tasks finds these again.

    Examples:

        traitroute traits --registry traitroute.db

        traitroute traits --label 1="stops early"
    """
    labels = [_parse(each) for each in label or ()]
    with Registry.open(registry, read_only=not labels) as store:
        stored = store.latest_profile()
        if stored is None:
            raise RegistryError(f"{registry} holds no profile yet: run `traitroute profile`")
        for index, text in labels:
            store.set_trait_label(stored.version, index, text)
            done = f"is called {text.strip()!r}" if text.strip() else "has no label"
            line = f"component {index} of profile version {stored.version} {done}"
            console.print(line, markup=False, highlight=False)
    if not labels:
        _show(stored)


def _parse(label: str) -> tuple[int, str]:
    index, equals, text = label.partition("=")
    if not equals or not index.strip().isdecimal():
        raise InputError(f'--label is COMPONENT=NAME, such as 1="stops early", not {label!r}')
    return int(index), text


def _show(stored: StoredProfile) -> None:
    summary = stored.summary
    if "loadings" not in summary:
        raise RegistryError(f"profile version {stored.version} keeps no loadings: run `traitroute profile` again")
    console.print(_components(stored.version, summary))
    console.print(_projections(summary))
    for i, name in enumerate(summary.get("trait_names", ()), start=1):
        if i <= summary["n_traits"]:
            console.print(f"{i}: {name['name']}. {name['evidence']}", markup=False, highlight=False)
    console.print(
        f"traits claimed: {_claimed(summary) or 'none'} (leading components whose share exceeds the null)\n"
        "stability: median |cosine| of a component with its match among resampled test examples, and "
        f"resampled adapters{_chance(summary)}.",
        highlight=False,
    )


def _components(version: int, summary: dict[str, Any]) -> Table:
    table = Table(
        title=f"components of the gains (profile version {version}, {summary.get('scaling', 'raw')} gains)",
        title_justify="left",
    )
    for column in ("", "variance", "95% of null", "p", "stability"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("name", "label", "strongest loadings"):
        table.add_column(column, overflow="fold")
    for i, loadings in enumerate(summary["loadings"]):
        table.add_row(
            f"{i + 1}",
            f"{100 * summary['explained_variance'][i]:.1f}%",
            f"{100 * summary['null'][i]:.1f}%",
            f"{summary['p_values'][i]:.3f}" if "p_values" in summary else "-",
            _stability(summary, i),
            escape(summary["trait_names"][i]["name"]) if "trait_names" in summary else "-",
            escape(_label(summary, i)),
            _strongest(loadings, summary["tasks"]),
            style="" if i < _claimed(summary) else "dim",
        )
    return table


def _projections(summary: dict[str, Any]) -> Table:
    shown = min(_PROJECTED, len(summary["loadings"]))
    table = Table(title=f"trait scores of the adapters (first {shown} components)", title_justify="left")
    table.add_column("adapter", overflow="fold")
    for i in range(shown):
        table.add_column(escape(_label(summary, i)) or f"{i + 1}", justify="right", overflow="fold")
    for adapter, scores in zip(summary["adapters"], summary["trait_scores"], strict=True):
        table.add_row(adapter, *(f"{score:+.2f}" for score in scores[:shown]))
    return table


def _claimed(summary: dict[str, Any]) -> int:
    pairs = zip(summary["explained_variance"], summary["null"], strict=True)
    return sum(1 for _ in takewhile(lambda pair: pair[0] > pair[1], pairs))


def _label(summary: dict[str, Any], i: int) -> str:
    return summary.get("trait_labels", {}).get(str(i + 1), "")


def _stability(summary: dict[str, Any], i: int) -> str:
    kinds = summary.get("stability")
    if not kinds:
        return "-"
    return ", ".join(f"{kinds[kind]['median'][i]:.2f}" for kind in ("examples", "adapters"))


def _chance(summary: dict[str, Any]) -> str:
    kinds = summary.get("stability")
    return f" (by chance {kinds['examples']['chance']:.2f})" if kinds else ""


def _strongest(loadings: list[float], tasks: list[str]) -> str:
    order = sorted(range(len(tasks)), key=lambda j: -abs(loadings[j]))[:_STRONGEST]
    return ", ".join(f"{tasks[j]} {loadings[j]:+.2f}" for j in order)
