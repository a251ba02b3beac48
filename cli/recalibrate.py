"""`traitroute recalibrate`: let feedback correct the gains that are predicted of adapters."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from ..adapters import Correction, FeedbackSource, Registry, StoredProfile
from ..router import RoutingProfile
from ..serving.skills.recalibration import BOUND, LEAST, corrections, read_rewards
from .console import console
from .options import DEFAULT_REGISTRY, RegistryPath, newest_profile


def recalibrate(
    registry: RegistryPath = DEFAULT_REGISTRY,
    apply: Annotated[bool, typer.Option("--apply", help="Keep the corrections, as a new profile version.")] = False,
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
    """Show, and with --apply keep, what feedback says of predicted gains.

    A correction is how much better or worse an adapter's decisions turned out than was predicted, less the same of the
    decisions for base: rewards are taken to lie above or below measured scores by the same amount for both. Off by
    default: servers follow it only once --apply has kept it; `--reset --apply` takes it back.

    Example:

        traitroute recalibrate
        traitroute recalibrate --apply
    """
    with Registry.open(registry, read_only=not apply) as store:
        stored = newest_profile(store)
        rewarded = read_rewards(store, datetime.now(UTC) - timedelta(days=days), source)
        proposed = [] if reset else corrections(rewarded, bound=bound, least=least)
        profile = RoutingProfile.from_bytes(stored.data)
        _show(proposed, profile, of_base=sum(each.adapter is None for each in rewarded))
        if apply:
            console.print(_kept(store, stored, profile, proposed), highlight=False)
        else:
            console.print("nothing was changed: --apply keeps the corrections", highlight=False)


def _show(proposed: list[Correction], profile: RoutingProfile, *, of_base: int) -> None:
    table = Table(
        "adapter",
        "decisions",
        "better than predicted",
        "correction",
        "until now",
        title=f"what feedback says ({of_base} decisions for base)",
        title_justify="left",
    )
    for each in proposed:
        difference = "too few decisions" if each.difference is None else f"{each.difference:+.3f} ± {each.error:.3f}"
        until_now = f"{profile.corrections.get(each.adapter, 0.0):+.3f}"
        row = (each.adapter, str(each.decisions), difference, f"{each.correction:+.3f}", until_now)
        table.add_row(*row)
    console.print(table)


def _kept(store: Registry, stored: StoredProfile, profile: RoutingProfile, proposed: list[Correction]) -> str:
    """Store the corrections, if they are others than those in force, and say so."""
    kept = {each.adapter: each.correction for each in proposed if each.correction}
    if kept == profile.corrections:
        return f"profile version {stored.version} has these corrections already"
    summary = stored.summary.changed(recalibration=tuple(proposed))
    data = replace(profile, corrections=kept).to_bytes()
    version = store.put_profile(data, summary, origin="recalibration", parent=stored.version)
    return f"kept as profile version {version}; servers follow within seconds"
