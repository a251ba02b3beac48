"""`traitroute recalibrate`: let feedback correct the gains that are predicted of adapters, by kind of request."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from ..adapters import Correction, FeedbackSource, Registry, StoredProfile
from ..router import Corrections, RoutingProfile
from ..serving.skills.recalibration import BOUND, LEAST, Learnt, learn, read_rewards
from .console import console
from .options import DEFAULT_REGISTRY, RegistryPath, newest_profile


def recalibrate(
    registry: RegistryPath = DEFAULT_REGISTRY,
    apply: Annotated[
        bool,
        typer.Option("--apply/--dry-run", help="Keep the corrections, as a new profile version, or only show them."),
    ] = False,
    reset: Annotated[bool, typer.Option("--reset", help="With --apply: take all corrections back.")] = False,
    bound: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="No correction exceeds this, in score points.")
    ] = BOUND,
    least: Annotated[
        int, typer.Option(min=2, help="So many rewarded decisions an adapter, and base, must have.")
    ] = LEAST,
    days: Annotated[int, typer.Option(min=1, help="How far back feedback counts.")] = 30,
    source: Annotated[
        FeedbackSource, typer.Option(help="Whose reports count: those of one source, since their scales differ.")
    ] = FeedbackSource.USER,
) -> None:
    """Show, and with --apply keep, what feedback says of predicted gains, by kind of request and adapter.

    A correction is how much better or worse an adapter's decisions on a kind turned out than was predicted, less the
    same of base's decisions there, those of the control group (TRAITROUTE_HOLDBACK) above all. Kinds that are alike
    learn from each other. Servers follow it only once --apply has kept it; `traitroute profiles rollback VERSION` goes
    back to any version before, and `--reset --apply` takes all corrections back.

    Example:

        traitroute recalibrate --dry-run
        traitroute recalibrate --apply
    """
    with Registry.open(registry, read_only=not apply) as store:
        stored = newest_profile(store)
        rewarded = read_rewards(store, datetime.now(UTC) - timedelta(days=days), source)
        profile = RoutingProfile.from_bytes(stored.data)
        learnt = Learnt(None, ()) if reset else learn(rewarded, profile, bound=bound, least=least)
        _show(learnt.cells, of_base=sum(each.adapter is None for each in rewarded))
        if apply:
            console.print(_kept(store, stored, profile, learnt), highlight=False)
        else:
            console.print("nothing was changed: --apply keeps the corrections", highlight=False)


def _show(cells: tuple[Correction, ...], *, of_base: int) -> None:
    table = Table(
        *("kind", "adapter", "outcomes", "of base", "better than predicted", "before", "after"),
        title=f"what feedback says ({of_base} decisions for base)",
        title_justify="left",
    )
    for each in sorted(cells, key=lambda each: (each.kind or "~", each.adapter)):
        difference = "too few decisions" if each.difference is None else f"{each.difference:+.3f} ± {each.error:.3f}"
        kind = each.kind or "like nothing profiled"
        # Where base answered nothing on a kind, its profiled score there is taken, shifted as elsewhere.
        base = str(each.of_base) if each.of_base else "none: as profiled"
        before, after = f"{each.before:+.3f}", f"{each.correction:+.3f}"
        table.add_row(kind, each.adapter, str(each.decisions), base, difference, before, after)
    console.print(table)


def _kept(store: Registry, stored: StoredProfile, profile: RoutingProfile, learnt: Learnt) -> str:
    """Store the corrections, if they are others than those in force, and say so."""
    corrections = learnt.corrections
    if corrections is not None and not corrections.anywhere.any():
        corrections = None
    if _alike(corrections, profile.corrections):
        return f"profile version {stored.version} has these corrections already"
    summary = stored.summary.changed(recalibration=learnt.cells)
    data = replace(profile, corrections=corrections).to_bytes()
    version = store.put_profile(data, summary, origin="recalibration", parent=stored.version)
    return (
        f"kept as profile version {version}; servers follow within seconds; "
        f"`traitroute profiles rollback {stored.version}` takes it back"
    )


def _alike(one: Corrections | None, other: Corrections | None) -> bool:
    if one is None or other is None:
        return one is other
    parts = ((one.general, other.general), (one.near, other.near), (one.novel, other.novel), (one.bound, other.bound))
    return all(np.allclose(a, b, atol=1e-6) for a, b in parts)
