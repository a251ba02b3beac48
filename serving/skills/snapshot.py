"""What skills are answered from: one revision of the registry, as the follower hands it over."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from ...adapters import Adapter, Location, Registry, StoredProfile
from ...router import Router, RoutingDecision
from .feedback import DecisionToken, signing_key
from .measured import Measured

NEEDED = (
    "adapters",
    "base",
    "base_model",
    "cells",
    "explained_variance",
    "loadings",
    "n_traits",
    "null",
    "p_values",
    "scores",
    "tasks",
    "trait_scores",
)
"""What a profile's summary must hold for skills to be told from it."""
_READ = frozenset({"cells", "estimated", "paired", "scores"})
"""What `Measured` has as arrays, and is not kept a second time: of thousands of adapters it is most of a summary."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The newest profile's router, summary and measured gains, with the adapters that may be served, by name.

    `tasks` are the specifications of the profiled tasks, `key` signs decision tokens, `location` is the registry's.
    """

    adapters: Mapping[str, Adapter]
    router: Router
    summary: Mapping[str, Any]
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
        """Read what skills need beside the router; None where the profile's summary tells too little.

        The router's `profile` and the servable `adapters` are read too unless they are given.
        """
        profile = profile or registry.profile(router.version)
        if missing := [part for part in NEEDED if part not in profile.summary]:
            _complain(profile, f"lacks {', '.join(missing)}")
            return None
        try:
            measured = Measured.read(registry, profile.summary)
        except (ValueError, TypeError, IndexError, KeyError) as exc:
            # A summary that contradicts itself costs the skills, not the routing.
            _complain(profile, f"has no matrix that can be read ({exc})")
            return None
        return cls(
            adapters={a.name: a for a in (registry.servable() if adapters is None else adapters)},
            router=router,
            summary={part: kept for part, kept in profile.summary.items() if part not in _READ},
            tasks=registry.tasks(),
            measured=measured,
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


def _complain(profile: StoredProfile, what: str) -> None:
    _logger.warning(
        "traitroute: profile version %d %s, so it has no skills API: run `traitroute profile` again",
        profile.version,
        what,
    )
