"""`traitroute compare`: do traits agree between two bases, or two methods of adaptation?"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from ..adapters import InputError, Location, Registry, RegistryError
from ..profiling.analysis.agreement import Agreement, Permuted, ProfiledGains, agreement
from .options import console, warn

First = Annotated[Location, typer.Argument(help="One registry.", metavar="A.db", parser=Location.parse)]
Second = Annotated[
    Location,
    typer.Argument(help="The other; it may be the same.", metavar="B.db", parser=Location.parse),
]
Version = Annotated[int | None, typer.Option(help="Profile version; default: the latest.")]


def compare(
    first: First,
    second: Second,
    version_a: Version = None,
    version_b: Version = None,
    permutations: Annotated[int, typer.Option(min=99, help="Size of the null.")] = 9999,
    seed: Annotated[int, typer.Option(help="Of the permutations.")] = 0,
) -> None:
    """Compare two profiles on the adapters and tasks that both have, matched by name.

    Example:

        traitroute compare smollm.db llama.db
    """
    side_a, side_b = _read(first, version_a), _read(second, version_b)
    if (first.resolve(), side_a.version) == (second.resolve(), side_b.version):
        raise InputError(
            f"both are version {side_a.version} of {first}: a profile always agrees with itself; "
            "give another registry, or --version-a and --version-b"
        )
    found = agreement(side_a.gains, side_b.gains, n_permutations=permutations, seed=seed)
    console.print(f"A: {side_a.describe()}\nB: {side_b.describe()}", highlight=False)
    _warn_of_other_rows(side_a, side_b, found.tasks)
    console.print(_tests(found))
    console.print(_places("task", found.tasks, found.by_task))
    console.print(_places("adapter", found.adapters, found.by_adapter))
    console.print(found.conclusion, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class _Side:
    """One profile of a registry; `digests` of its tasks, as they were last profiled."""

    place: Location
    version: int
    bases: tuple[str, ...]
    gains: ProfiledGains
    digests: dict[str, str]

    def describe(self) -> str:
        """File, version, base model and size in a line."""
        return (
            f"{self.place} version {self.version}, {', '.join(self.bases) or 'unknown base'}: "
            f"{len(self.gains.adapters)} adapters, {len(self.gains.tasks)} tasks, "
            f"n_traits {self.gains.n_traits}"
        )


def _read(place: Location, version: int | None) -> _Side:
    with Registry.open(place, read_only=True) as store:
        profile = store.latest_profile() if version is None else store.profile(version)
        if profile is None:
            raise RegistryError(f"{place} holds no profile yet: run `traitroute profile`")
        gains = ProfiledGains.from_summary(profile.summary)
        bases = sorted({a.base_model for a in store.adapters() if a.name in gains.adapters})
        return _Side(place, profile.version, tuple(bases), gains, store.task_digests())


def _warn_of_other_rows(a: _Side, b: _Side, tasks: tuple[str, ...]) -> None:
    other = [t for t in tasks if a.digests.get(t) != b.digests.get(t)]
    if other:
        warn(
            f"not the same test rows or rules on both sides: {', '.join(other)}; "
            "differences between these tasks count as disagreement"
        )


def _tests(found: Agreement) -> Table:
    k = found.n_traits
    table = Table(title="agreement against chance", title_justify="left")
    table.add_column()
    for column in ("found", "by chance", "p"):
        table.add_column(column, justify="right")
    rows: list[tuple[str, Permuted]] = [
        (f"Procrustes disparity of {k} trait scores (0: the same)", found.disparity),
        (f"canonical correlations {_list(found.canonical_correlations)}, squared", found.canonical),
        (f"loadings, angles {_list(found.loading_angles, '.0f')} degrees", found.loadings),
    ]
    for name, test in rows:
        table.add_row(name, f"{test.value:.2f}", f"{test.null_median:.2f}", f"{test.p:.3g}")
    gains = found.gains
    table.add_row(
        f"rank correlation of {gains.cells} gains",
        f"{gains.r:+.2f}",
        f"{gains.null_mean:+.2f}",
        f"{gains.p:.3g}",
    )
    return table


def _places(kind: str, names: tuple[str, ...], correlations: NDArray[np.float64]) -> Table:
    """Where they agree: one correlation a task or adapter, highest first."""
    over = "adapters" if kind == "task" else "tasks, less the task's mean"
    title = f"correlation of gains over {over}"
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column(kind, overflow="fold")
    table.add_column("r", justify="right")
    # NaN sorts last.
    for i in np.argsort(-correlations):
        value = correlations[i]
        table.add_row(names[i], "does not vary" if np.isnan(value) else f"{value:+.2f}")
    return table


def _list(values: NDArray[np.float64], form: str = ".2f") -> str:
    return ", ".join(format(v, form) for v in values)
