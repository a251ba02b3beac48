"""Whether a registry can be served: its profile, its adapters and their weights."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ...adapters import (
    AdapterState,
    Place,
    Registry,
    RegistryError,
    StoredProfile,
    TraitRouteError,
    check_not_base,
)
from ...adapters.registry.schema import SCHEMA_VERSION
from ...router import Router
from .finding import Finding, fail, listed, ok, warn

OLD = timedelta(days=90)
LEAST_FREE_BYTES = 2**30
_UNREADABLE = "give another with --registry, or see the message; servers that run go on with what they last read"
_REMEASURE = "measure what changed: `traitroute profile`"


def check_registry(
    place: Place, *, on_weights: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Finding]:
    """Check the registry at a path or URL; `on_weights` is told how many adapters' weights were read, of how many."""
    try:
        with Registry.open(place, read_only=True) as registry:
            found = f"{registry.location}: schema {SCHEMA_VERSION}, revision {registry.revision()}"
            yield ok("registry", found)
            yield from _check_profile(registry)
            yield _check_adapters(registry)
            yield _check_names(registry)
            yield from _check_stored(registry, on_weights)
    except (TraitRouteError, OSError) as exc:
        yield fail("registry", str(exc), _UNREADABLE)


def _check_profile(registry: Registry) -> Iterator[Finding]:
    try:
        stored = registry.latest_profile()
        if stored is None:
            yield fail("profile", "none: base answers every request", "run `traitroute profile`")
            return
        router = Router.from_registry(registry)
        router.route("Is there an answer?")
    except (TraitRouteError, ValueError, ArithmeticError) as exc:
        yield fail("profile", str(exc), "run `traitroute profile` again")
        return
    yield _check_age(stored)
    yield _check_changes(registry, stored, router.profile.adapters)


def _check_age(stored: StoredProfile) -> Finding:
    age = datetime.now(UTC) - stored.created_at
    found = f"version {stored.version}, {age.days} days old"
    if age > OLD:
        return warn("profile", found, "measure again if your requests have changed")
    return ok("profile", found)


def _check_changes(registry: Registry, stored: StoredProfile, known: tuple[str, ...]) -> Finding:
    check = "changes since"
    ready = registry.adapters(AdapterState.READY)
    newer = [a.name for a in ready if a.name in known and a.created_at > stored.created_at]
    if newer:
        found = f"other weights than were measured: {listed(newer)}"
        return warn(check, found, _REMEASURE)
    if unknown := [a.name for a in ready if a.name not in known]:
        return warn(check, f"ready but not in the profile: {listed(unknown)}", _REMEASURE)
    gone = sorted(set(known) - {a.name for a in ready})
    if gone:
        found = f"in the profile but not ready, so never chosen: {listed(gone)}"
        return warn(check, found, "enable them, or profile again without them")
    return ok(check, "none: every adapter of the profile is ready, with the weights measured")


def _check_adapters(registry: Registry) -> Finding:
    counts = Counter(a.state for a in registry.adapters())
    found = ", ".join(f"{counts[state]} {state}" for state in AdapterState)
    if not counts[AdapterState.READY]:
        return warn("adapters", found, "none is ready, so base answers: run `traitroute profile`")
    return ok("adapters", found)


def _check_names(registry: Registry) -> Finding:
    shadowed = []
    for adapter in registry.adapters():
        try:
            check_not_base(adapter.name, adapter.base_model)
        except ValueError:
            shadowed.append(adapter.name)
    if shadowed:
        found = f"called like the base model, which may answer instead: {listed(shadowed)}"
        return warn("names", found, "add the adapter under another name, and remove this one")
    return ok("names", "no adapter is called like the base model")


def _check_stored(registry: Registry, on_weights: Callable[[int, int], None]) -> Iterator[Finding]:
    try:
        folder = registry.weights.root
    except RegistryError as exc:
        yield fail("weights", str(exc), "export TRAITROUTE_WEIGHTS")
        return
    yield _check_weights(registry, on_weights)
    yield _check_disk(folder)


def _check_weights(registry: Registry, on_weights: Callable[[int, int], None]) -> Finding:
    adapters, broken = registry.servable(), []
    for done, adapter in enumerate(adapters):
        on_weights(done, len(adapters))
        try:
            registry.weights.verify(adapter.weights_digest)
        except (TraitRouteError, OSError):
            broken.append(adapter.name)
    on_weights(len(adapters), len(adapters))
    if broken:
        found = f"missing or changed: {listed(broken)}"
        advice = "restore them from a backup, or add the adapters again"
        return fail("weights", found, advice)
    return ok("weights", f"{len(adapters)} servable adapters, every digest right")


def _check_disk(folder: Path) -> Finding:
    there = next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    found = f"{free / 2**30:.1f} GiB free where weights are kept"
    if free < LEAST_FREE_BYTES:
        return warn("disk", found, "free some: weights are copied here")
    return ok("disk", found)
