"""What a server goes by: one revision of its registry, of which only what changed since the last one is read again."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Protocol, Self

from ..adapters import Adapter, AdapterState, Location, Registry, RegistryError, WeightStore
from ..adapters.adapter import served_name
from ..adapters.registry.registry import servable
from ..router import Router, RoutingDecision, RoutingProfile
from .canaries import Canary
from .experiment import PURPOSE
from .http.tenants import OPERATOR, Tenant
from .profile_snapshot import ProfileSnapshot


class TextRouter(Protocol):
    """Anything that routes text; called in worker threads, with only those options that a request gave."""

    def route(
        self,
        request: str,
        /,
        *,
        among: Collection[str] | None = None,
        least_gain: float | None = None,
        explain: bool = False,
        held: Collection[str] = (),
        worth: float = 0.0,
    ) -> RoutingDecision:
        """Choose an adapter, or base, for a request's text."""
        ...


@dataclass(frozen=True)
class RegistrySnapshot:
    """One revision of a registry, as a server reads it; a server that has read none goes by an empty one.

    `known` are all adapters by name, and `adapters` those that may be served, whose weights lie in `weights`.
    `shadowed` are names that cannot be served, since the server calls its base model so; `withheld` are names that must
    not be served: disabled adapters, and removed ones.

    `router` chooses among the adapters that are ready, by `profile`, the newest one; `no_router` says why there is
    none. `trial_router` chooses among `canaries` too (None where there are none). `profile_key` is the profile's
    version and the revision that last wrote it. `skills` is what the skills API answers from (None where the profile
    lacks what it needs). `draw_key` is the registry's key for drawing conversations.

    `tenant` is who sees it: as a tenant of some adapters sees it, there are no others.
    """

    revision: int = -1
    location: Location | None = None
    weights: WeightStore | None = None
    draw_key: bytes = b""
    known: Mapping[str, Adapter] = field(default_factory=dict)
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    shadowed: frozenset[str] = frozenset()
    withheld: frozenset[str] = frozenset()
    profile: RoutingProfile | None = None
    profile_key: tuple[int, int] | None = None
    router: TextRouter | None = None
    trial_router: Router | None = None
    no_router: str = "no-profile: the server is starting"
    skills: ProfileSnapshot | None = None
    tenant: Tenant = OPERATOR

    @classmethod
    def read(
        cls,
        registry: Registry,
        before: Self | None = None,
        *,
        base_names: Collection[str] = (),
        offered_once: Collection[str] = (),
    ) -> Self:
        """Read a registry of which `before` was read earlier; adapters called like one of `base_names` are not served.

        What was `offered_once` and is no longer known was removed, and is withheld. Nothing of two revisions is mixed,
        so no profile is paired with the weights of another.
        """
        with registry.frozen():
            revision = registry.revision()
            if before is not None and before.revision > revision:
                # It was restored from a backup.
                before = None
            known = _known(registry, before)
            taken = {served_name(name) for name in base_names}
            shadowed = frozenset(name for name in known if served_name(name) in taken)
            served = servable(known.values(), registry.replacements())
            read = cls(
                revision=revision,
                location=registry.location,
                weights=registry.weights,
                draw_key=registry.key_for(PURPOSE),
                known=known,
                adapters={a.name: a for a in served if a.name not in shadowed},
                shadowed=shadowed,
            )
            read = read._routed(registry, before)
        measured = read.profile.adapters if read.profile is not None else ()
        gone = {*known, *measured, *offered_once} - read.adapters.keys()
        return replace(
            read,
            withheld=frozenset(name for name in gone if served_name(name) not in taken),
            skills=read.skills and read.skills.only(read.adapters),
        )

    def seen_by(self, tenant: Tenant) -> Self:
        """The snapshot as `tenant` may see it: nothing in it names an adapter that it may not use, or tells of one."""
        if tenant.may_all:
            return replace(self, tenant=tenant)
        tags = {name: adapter.tags for name, adapter in (*self.known.items(), *self.adapters.items())}

        @cache
        def admits(name: str) -> bool:
            return any(tenant.may_use(each, tags.get(each, ())) for each in self._replaced_by(name))

        seen = replace(
            self,
            known={name: adapter for name, adapter in self.known.items() if admits(name)},
            adapters={name: adapter for name, adapter in self.adapters.items() if admits(name)},
            router=None,
            trial_router=None,
            skills=None,
            tenant=tenant,
        )
        if not isinstance(self.router, Router):
            return seen
        router = self.router.limited_to(seen.ready)
        if seen.canaries and self.trial_router is not None:
            seen = replace(seen, trial_router=self.trial_router.limited_to({*seen.ready, *seen.canaries}))
        return replace(seen, router=router, skills=self.skills and self.skills.seen_by(admits, router))

    def _replaced_by(self, name: str) -> list[str]:
        """An adapter, and those that it was added to replace: who may use these may use it."""
        names = [name]
        while (known := self.known.get(names[-1])) and known.replaces and known.replaces not in names:
            names.append(known.replaces)
        return names

    def may_name(self, model: str) -> bool:
        """Whether `model`, which is no name of the base model, may be asked for, or told of.

        Beside the adapters that it sees, a tenant may ask for what the operator has named it of the server's own.
        """
        if self.tenant.may_all or model in self.known or model in self.adapters:
            return True
        return model in self.tenant.adapters and model not in self.withheld

    @cached_property
    def ready(self) -> frozenset[str]:
        """Names of the adapters that `auto` may choose, canaries aside."""
        ready = (a for a in self.known.values() if a.state is AdapterState.READY and a.canary is None)
        return frozenset(a.name for a in ready) - self.shadowed

    @cached_property
    def canaries(self) -> Mapping[str, Canary]:
        """The adapters that `auto` may choose for a share of the conversations, by name."""
        return {name: canary for name, canary in Canary.among(self.known).items() if name not in self.shadowed}

    def is_taken_back(self, adapter: str) -> bool:
        """Whether `auto` may choose an adapter no more."""
        return adapter in self.known and self.known[adapter].canary == 0

    def tags_of(self, adapter: str) -> Collection[str]:
        """What an adapter that may be served is tagged with."""
        return self.adapters[adapter].tags if adapter in self.adapters else ()

    def _routed(self, registry: Registry, before: Self | None) -> Self:
        """The snapshot with its router: read anew where the newest profile is not that of `before`."""
        newest = registry.newest_profile()
        if before is not None and before.profile_key == newest:
            return self._routed_as(before)
        try:
            stored = registry.latest_profile()
            if stored is None:
                raise RegistryError("the registry holds no profile yet: run `traitroute profile`")
            profile = RoutingProfile.from_bytes(stored.data)
            router = Router(profile, version=stored.version, routable=self.ready)
            router.route("The first request would otherwise pay for what is loaded lazily.")
        except (RegistryError, ValueError, ArithmeticError) as exc:
            return replace(self, profile_key=newest, no_router=f"no-profile: {exc}")
        skills = ProfileSnapshot.read(registry, router, profile=stored, adapters=())
        read = replace(self, profile=profile, profile_key=newest, router=router, no_router="", skills=skills)
        return replace(read, trial_router=read._trying())

    def _trying(self) -> Router | None:
        """The router that chooses among the canaries too."""
        if self.profile is None or self.profile_key is None or not self.canaries:
            return None
        return Router(self.profile, version=self.profile_key[0], routable=self.ready.union(self.canaries))

    def _routed_as(self, before: Self) -> Self:
        router, skills = before.router, before.skills
        if before.profile is not None and before.profile_key is not None and before.ready != self.ready:
            router = Router(before.profile, version=before.profile_key[0], routable=self.ready)
            skills = skills and replace(skills, router=router)
        kept = replace(
            self,
            profile=before.profile,
            profile_key=before.profile_key,
            router=router,
            no_router=before.no_router,
            skills=skills,
        )
        return replace(kept, trial_router=kept._trying())


def _known(registry: Registry, before: RegistrySnapshot | None) -> dict[str, Adapter]:
    """All adapters by name; of those that have not changed since `before`, what was read then."""
    if before is None:
        return {a.name: a for a in registry.adapters()}
    changed = {a.name: a for a in registry.adapters(since=before.revision)}
    known = {**before.known, **changed}
    return {name: known[name] for name in registry.adapter_names()}
