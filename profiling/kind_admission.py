"""A kind of request that was compared (`recurring.py`) joins the profile where the operator says so, and leaves it."""

import numpy as np

from ..adapters import ConflictError, JudgedKind, Registry, RegistryError
from ..router import RoutingProfile


def admit(registry: Registry, kind: str) -> int:
    """Have a kind that was compared join the newest profile, and return the new version.

    Raises:
        RegistryError: it was not compared, or is not worth it.
        ConflictError: adapters, or the profile, are others since, or another profile came first.
    """
    stored = registry.latest_profile()
    found = next((each for each in registry.comparisons() if each.kind == kind), None)
    if stored is None or found is None:
        raise RegistryError(f"kind {kind!r} was not compared: traitroute samples compared")
    if not found.worth_it:
        why = found.refused or f"what would be chosen is better by {found.low:+.3f} at least"
        raise RegistryError(f"kind {kind} is not worth admitting: {why}")
    if found.profile_version not in registry.lineage():
        raise ConflictError(f"the profile was fitted anew since kind {kind} was compared: compare again")
    weights = stored.summary.weights
    if lost := [n for n, w in zip(found.adapters, found.weights, strict=True) if weights.get(n) != w]:
        raise ConflictError(f"adapter {lost[0]} has other weights than when kind {kind} was compared: compare again")
    profile = RoutingProfile.from_bytes(stored.data)
    beyond = np.zeros(len(profile.adapters))
    places = [profile.adapters.index(name) for name in found.adapters]
    beyond[places] = np.array(found.gains) - np.array(found.predicted)
    note = JudgedKind(
        kind=kind,
        judge=found.by,
        judged_at=found.compared_at.isoformat(timespec="seconds"),
        requests=found.requests,
        lead=found.lead,
        low=found.low,
        adapters=found.adapters,
        gains=found.gains,
    )
    kept = [each for each in stored.summary.recurring if each.kind != kind]
    data = profile.with_kind(kind, found.rows(), beyond, max(found.errors)).to_bytes()
    summary = stored.summary.changed(recurring=(*kept, note))
    return registry.put_profile(data, summary, origin="kind", parent=stored.version)


def remove(registry: Registry, kind: str) -> int:
    """Take a recurring kind out of the newest profile, and return the new version.

    Raises:
        RegistryError: the profile has no such kind.
        ConflictError: another profile came first.
    """
    stored = registry.latest_profile()
    if stored is None:
        raise RegistryError("the registry holds no profile yet: run `traitroute profile`")
    data = RoutingProfile.from_bytes(stored.data).without_kind(kind).to_bytes()
    kept = tuple(each for each in stored.summary.recurring if each.kind != kind)
    return registry.put_profile(data, stored.summary.changed(recurring=kept), origin="kind", parent=stored.version)
