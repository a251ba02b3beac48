"""What a server goes by: one revision of its registry, of which only what changed since the last one is read again."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Self

from ..adapters import Adapter, AdapterState, Registry, RegistryError
from ..adapters.adapter import served_name
from ..adapters.registry.registry import servable
from ..router import Router, RoutingProfile
from .skills.snapshot import Snapshot


@dataclass(frozen=True)
class Routed:
    """How requests are routed among the adapters that are `ready`; `no_router` says why `router` is None.

    `profile` is the newest profile's version and the revision that last wrote it, None where there is no profile.
    """

    profile: tuple[int, int] | None
    ready: frozenset[str]
    router: Router | None
    no_router: str = ""
    snapshot: Snapshot | None = None

    @classmethod
    def read(cls, registry: Registry, ready: frozenset[str], before: Self | None) -> Self:
        """Read the newest profile, unless it is the one that was read `before`."""
        newest = registry.newest_profile()
        if before is not None and before.profile == newest:
            return before._among(ready)
        try:
            stored = registry.latest_profile()
            if stored is None:
                raise RegistryError("the registry holds no profile yet: run `traitroute profile`")
            profile = RoutingProfile.from_bytes(stored.data)
            router = Router(profile, version=stored.version, routable=ready)
            router.route("The first request would otherwise pay for what is loaded lazily.")
        except (RegistryError, ValueError, ArithmeticError) as exc:
            return cls(newest, ready, None, f"no-profile: {exc}")
        snapshot = Snapshot.read(registry, router, profile=stored, adapters=())
        return cls(newest, ready, router, snapshot=snapshot)

    def _among(self, ready: frozenset[str]) -> Self:
        if self.router is None or ready == self.ready:
            return self
        router = Router(self.router.profile, version=self.router.version, routable=ready)
        snapshot = self.snapshot and replace(self.snapshot, router=router)
        return replace(self, ready=ready, router=router, snapshot=snapshot)


@dataclass(frozen=True)
class RegistrySnapshot:
    """One revision: all `adapters`, and those that may be served (`offered`, with their `tags`), by name.

    `shadowed` are the names of those that cannot be, since the server calls its base model so.
    `withheld` are the names of those that may not: disabled ones, and measured ones that were removed.
    """

    revision: int
    adapters: Mapping[str, Adapter]
    offered: dict[str, Adapter]
    shadowed: frozenset[str]
    withheld: frozenset[str]
    tags: Mapping[str, frozenset[str]]
    routed: Routed
    snapshot: Snapshot | None

    @classmethod
    def read(cls, registry: Registry, before: Self | None = None, *, base_names: Collection[str] = ()) -> Self:
        """Read a registry of which `before` was read earlier; what is called like one of `base_names` is not offered.

        Nothing of two revisions is mixed, so no profile is paired with the weights of another.
        """
        with registry.frozen():
            revision = registry.revision()
            if before is not None and before.revision > revision:
                # It was restored from a backup.
                before = None
            adapters = _adapters(registry, before)
            served = servable(adapters.values(), registry.replacements())
            taken = {served_name(name) for name in base_names}
            shadowed = frozenset(name for name in adapters if served_name(name) in taken)
            ready = frozenset(n for n, a in adapters.items() if a.state is AdapterState.READY)
            ready -= shadowed
            routed = Routed.read(registry, ready, before and before.routed)
        offered = {a.name: a for a in served if a.name not in shadowed}
        measured = routed.router.profile.adapters if routed.router is not None else ()
        known = {*adapters, *measured} - offered.keys()
        return cls(
            revision=revision,
            adapters=adapters,
            offered=offered,
            shadowed=shadowed,
            withheld=frozenset(n for n in known if served_name(n) not in taken),
            tags={name: frozenset(a.tags) for name, a in offered.items()},
            routed=routed,
            snapshot=routed.snapshot and routed.snapshot.only(offered),
        )


def _adapters(registry: Registry, before: RegistrySnapshot | None) -> dict[str, Adapter]:
    if before is None:
        return {a.name: a for a in registry.adapters()}
    changed = {a.name: a for a in registry.adapters(since=before.revision)}
    known = {**before.adapters, **changed}
    return {name: known[name] for name in registry.adapter_names()}
