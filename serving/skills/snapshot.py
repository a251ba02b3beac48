"""What skills are answered from: one revision of the registry, as the follower hands it over."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...adapters import Adapter, FittedTraits, Location, Registry, RegistryError, StoredProfile
from ...router import Router, RoutingDecision
from .feedback import DecisionToken, signing_key
from .measured import Measured

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The newest profile's router, traits and measured gains, with the adapters that may be served, by name.

    `trait_scores` (adapters, components) are of the adapters in `measured`. `tasks` are the specifications of the
    profiled tasks, `key` signs decision tokens, `location` is the registry's.
    """

    adapters: Mapping[str, Adapter]
    router: Router
    base_model: str
    traits: FittedTraits
    trait_scores: NDArray[np.float64]
    tasks: Mapping[str, Mapping[str, Any]]
    measured: Measured
    key: bytes
    location: Location

    @classmethod
    def read(
        cls,
        registry: Registry,
        router: Router,
        *,
        profile: StoredProfile | None = None,
        adapters: Sequence[Adapter] | None = None,
    ) -> Self | None:
        """Read what skills need beside the router; None where the profile's summary cannot be read.

        The router's `profile` and the servable `adapters` are read too unless they are given.
        """
        profile = profile or registry.profile(router.version)
        try:
            summary = profile.summary
        except RegistryError as exc:
            # It costs the skills, not the routing.
            _logger.warning("traitroute: no skills API, since %s", exc)
            return None
        return cls(
            adapters={a.name: a for a in (registry.servable() if adapters is None else adapters)},
            router=router,
            base_model=summary.base_model,
            traits=summary.traits,
            trait_scores=summary.trait_scores,
            tasks=registry.tasks(),
            measured=Measured.read(summary),
            key=signing_key(profile),
            location=registry.location,
        )

    def only(self, adapters: Mapping[str, Adapter]) -> Self:
        """The snapshot with no other adapters than these.

        A replacement that waits to be measured, NAME@VERSION, is no skill yet.
        """
        return replace(self, adapters={n: a for n, a in adapters.items() if "@" not in n})

    @property
    def version(self) -> int:
        """The profile's version."""
        return self.router.version

    def token(self, decision: RoutingDecision, adapter: str | None, gain: float) -> str | None:
        """The token of a decision by which `adapter` (None: base) answers.

        There is none where another profile made it, or the adapter is one no more.
        """
        served = self.adapters.get(adapter) if adapter is not None else None
        if decision.profile_version != self.version or (adapter is not None and served is None):
            return None
        near = decision.nearest_tasks[0].task if decision.nearest_tasks else None
        tasks = self.measured.tasks
        level = float(self.measured.base[tasks.index(near)]) if near in tasks else None
        weights = served.weights_digest if served else ""
        return DecisionToken.of(adapter, gain, level, self.version, weights).sign(self.key)
