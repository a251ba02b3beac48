"""`traitroute profiles`: versions of the fitted profile, what they change, and back."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..adapters import Registry
from .console import console
from .options import DEFAULT_REGISTRY, RegistryPath

if TYPE_CHECKING:
    from ..profiling.versions import KindChange

app = typer.Typer(no_args_is_help=True, help="List, compare and roll back profile versions; fit anew.")
Version = Annotated[int, typer.Argument(min=1, help="A version, as `profiles list` shows it.")]


@app.command("list")
def list_profiles(registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """List every version: when and how it was made, and from which. Servers route with the last.

    Example:

        traitroute profiles list
    """
    table = Table("version", "made", "how", "from")
    with Registry.open(registry, read_only=True) as store:
        for each in store.profile_history():
            made = each.created_at.strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(str(each.version), made, _HOW[each.origin], str(each.parent or ""))
    console.print(table)


_HOW = {
    "fit": "fitted",
    "row": "an adapter joined",
    "task": "a task joined",
    "rollback": "rolled back",
    "recalibration": "taught by feedback",
    "kind": "a judged kind joined or left",
}


@app.command("prune")
def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest to keep.")],
    registry: RegistryPath = DEFAULT_REGISTRY,
) -> None:
    """Forget all but the newest versions: each is a whole profile, and every adapter that joins makes one.

    Example:

        traitroute profiles prune --keep 20
    """
    with Registry.open(registry) as store:
        forgotten = store.forget_profiles(keep=keep)
    console.print(f"forgot {len(forgotten)} versions; {keep} at most are kept")


@app.command("diff")
def diff(
    before: Version,
    after: Version,
    registry: RegistryPath = DEFAULT_REGISTRY,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which decisions on the test prompts of its tasks differ between two versions, among the adapters that are
    ready now, and which tasks lose; `traitroute replay` asks of your own requests what the versions expect.

    A task loses where the adapters that the newer version chooses were measured to gain less on it than those before,
    by more than two standard errors.

    Example:

        traitroute profiles diff 3 4
    """
    from ..profiling.matrix.profiled import Profiled
    from ..profiling.versions import Reference, difference

    with Registry.open(registry, read_only=True) as store:
        old, new = store.profile(before), store.profile(after)
        reference = Reference.of_tasks(Profiled.open(store))
        found = difference(store, old, new, reference)
    changed, count = found.moved, len(reference.texts)
    kinds = [kind for kind in found.kinds if kind.changed]
    if as_json:
        rows = [{"request": m.place + 1, "before": m.before, "after": m.after} for m in changed]
        shown = [asdict(kind) | {"change": kind.change, "loses": kind.loses} for kind in kinds]
        typer.echo(json.dumps({"requests": count, "changed": rows, "kinds": shown}))
        return
    table = Table("of", f"version {before}", f"version {after}", "requests")
    moves = Counter((m.kind, m.before or "base", m.after or "base") for m in changed)
    for (kind, was, now), times in moves.most_common():
        table.add_row(kind, was, now, str(times))
    if moves:
        console.print(table)
    if kinds:
        console.print(_by_kind(kinds))
    console.print(f"{len(changed)} of {count} decisions differ")
    if losing := [kind.kind for kind in kinds if kind.loses]:
        console.print(f"worse off with version {after}: {', '.join(losing)}", soft_wrap=True)


def _by_kind(kinds: "Sequence[KindChange]") -> Table:
    table = Table("kind", title="measured gain over base of the adapters chosen", title_justify="left")
    for column in ("requests", "moved", "before", "after", "change", "two standard errors", ""):
        table.add_column(column, justify="right")
    for each in kinds:
        gains = [each.before, each.after, each.change]
        figures = ("–" if gain is None else f"{gain:+.3f}" for gain in gains)
        error = "–" if each.error is None else f"± {2 * each.error:.3f}"
        said = "[bold red]loses[/]" if each.loses else ""
        table.add_row(each.kind, str(each.requests), str(each.changed), *figures, error, said)
    return table


@app.command("rollback")
def rollback(version: Version, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Route as an earlier version did: its contents become a new version, and none is lost.

    Adapters that joined since are not chosen any more; those that were replaced since keep out, for their row is of
    other weights.

    Example:

        traitroute profiles rollback 3
    """
    from ..profiling.versions import roll_back

    with Registry.open(registry) as store:
        restored = roll_back(store, version)
    console.print(f"version {restored.version} holds what version {version} held")
    if restored.left_out:
        console.print(
            f"left out, since their weights were replaced: {', '.join(restored.left_out)}; measure them again"
        )


@app.command("refit")
def refit(
    registry: RegistryPath = DEFAULT_REGISTRY,
    force: Annotated[bool, typer.Option("--force", help="Fit even if nothing asks for it.")] = False,
) -> None:
    """Fit traits and routing anew from stored outcomes, where the adapters that joined ask for it; nothing is measured.

    Example:

        traitroute profiles refit
    """
    from ..profiling.fit import refit as fit_again
    from ..profiling.matrix.profiled import Profiled
    from ..profiling.versions import Drift

    with Registry.open(registry) as store:
        drift = Drift.of(Profiled.open(store))
        for name, rest in drift.residuals.items():
            console.print(
                f"{name}: {100 * rest:.1f} points not expressed by the traits; usual up to {100 * drift.band:.1f}"
            )
        for reason in drift.reasons:
            console.print(f"fit anew: {reason}", soft_wrap=True)
        if not drift.reasons and not force:
            console.print(
                f"not fitted: {len(drift.residuals)} adapters joined {drift.fitted} fitted ones, and the traits "
                "express them as they should; --force fits all the same"
            )
            return
        console.print(f"fitted: profile version {fit_again(store)}")
