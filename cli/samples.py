"""`traitroute samples`: the texts that servers keep of requests that recur and that nothing profiled is like."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from ..adapters import InputError, Registry, RegistryError, Sample
from ..router import RoutingProfile
from ..serving.traffic.sampling import KEY, SampleKeys, likeness_to
from .console import console, say
from .options import DEFAULT_REGISTRY, RegistryPath, newest_profile

app = typer.Typer(no_args_is_help=True, help="Requests that recur and that nothing profiled is like: a few texts.")
KindName = Annotated[str, typer.Argument(help="The kind, as `traitroute samples list` names it.", show_default=False)]
SHOWN = 300
"""Characters of a text that `list --texts` prints."""


@app.command("key")
def make_key() -> None:
    """Make a key for TRAITROUTE_SAMPLE_KEY, and print it; it is kept nowhere.

    Servers that are given it keep a few texts of requests that recur and that nothing profiled is like, encrypted, for
    some hours. To change keys put the new one before the old one, separated by a space, until what the old one
    encrypted has expired.

    Example:

        export TRAITROUTE_SAMPLE_KEY=$(traitroute samples key)
    """
    say(SampleKeys.new_key())


@app.command("list")
def list_samples(
    registry: RegistryPath = DEFAULT_REGISTRY,
    texts: Annotated[
        int, typer.Option(min=0, max=100, help="Print so many texts of each kind too, which takes the key.")
    ] = 0,
) -> None:
    """List the kinds of requests of which texts are kept, with what they are least unlike.

    Example:

        traitroute samples list --texts 3
    """
    with Registry.open(registry, read_only=True) as store:
        samples, lineage = store.samples(), store.lineage()
        profile = RoutingProfile.from_bytes(newest_profile(store).data)
    kinds: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        kinds[sample.kind].append(sample)
    if not kinds:
        say(f"no texts are kept: servers keep some once {KEY} is set and requests recur that nothing is like")
        return
    keys = SampleKeys.from_environment()
    table = Table("kind", "requests", "first", "last", "expire until", "tenants", "least unlike")
    for kind, of_kind in sorted(kinds.items(), key=lambda each: -len(each[1])):
        first, last, until = (
            _age(when)
            for when in (of_kind[0].created_at, of_kind[-1].created_at, max(each.expires_at for each in of_kind))
        )
        tenants = ", ".join(sorted({each.tenant or "operator" for each in of_kind}))
        table.add_row(kind, str(len(of_kind)), first, last, until, escape(tenants), _near(of_kind, lineage, profile))
    console.print(table)
    if texts:
        _show_texts(kinds, keys, texts)


@app.command("forget")
def forget_samples(
    kind: Annotated[str | None, typer.Argument(help="The kind; with --all, every one.", show_default=False)] = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
    every: Annotated[bool, typer.Option("--all", help="Forget the texts of every kind.")] = False,
) -> None:
    """Remove the texts of a kind now, or of all.

    Examples:

        traitroute samples forget 3f9a01c2

        traitroute samples forget --all
    """
    if (kind is None) != every:
        raise InputError("give the kind whose texts are to be forgotten, or --all")
    with Registry.open(registry) as store:
        if not (removed := store.forget_samples(kind)) and kind is not None:
            raise RegistryError(f"no texts of kind {kind!r} are kept: traitroute samples list")
    say(f"{removed} texts were removed")


def _show_texts(kinds: Mapping[str, Sequence[Sample]], keys: SampleKeys | None, count: int) -> None:
    if keys is None:
        raise InputError(f"{KEY} is not set: texts are shown to whoever has the servers' key")
    for kind, of_kind in kinds.items():
        for sample in of_kind[:count]:
            text = keys.decrypt(sample.text)
            # Strangers wrote it: nothing in it may steer a terminal.
            shown = "(encrypted by another key)" if text is None else repr(text[:SHOWN])[1:-1]
            say(f"{kind}: {shown}")


def _near(samples: Sequence[Sample], lineage: Sequence[int], profile: RoutingProfile) -> str:
    """The profiled tasks that the samples are least unlike."""
    rows = [sample.row() for sample in samples if sample.profile_version in lineage]
    if not rows:
        return "kept before the profile was fitted anew"
    near = likeness_to(np.mean(rows, axis=0, keepdims=True), profile.centroids, profile)[0]
    return ", ".join(f"{profile.tasks[i]} ({near[i]:.2f})" for i in np.argsort(-near)[:3])


def _age(when: datetime) -> str:
    hours = (when - datetime.now(UTC)).total_seconds() / 3600
    return f"{abs(hours):.0f} h ago" if hours < 0 else f"in {hours:.0f} h"
