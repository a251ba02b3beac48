"""The router: request text → features → demand → affinity → an adapter, or the base model."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..adapters import AdapterState, Registry, RegistryError
from .decision import Affinity, NearTask, RoutingDecision
from .profile import RoutingProfile

CAUTION = 2.0
"""How many standard errors an adapter's predicted gain must lie above the least gain to be chosen."""


class Router:
    """Route requests with a fitted profile; read-only, so safe to share between threads.

    `routable` limits the choice to those adapters; `least_gain` is the predicted gain (score points)
    below which the base model serves.
    """

    def __init__(
        self,
        profile: RoutingProfile,
        *,
        version: int = 0,
        routable: frozenset[str] | None = None,
        caution: float = CAUTION,
        least_gain: float = 0.0,
    ) -> None:
        self.profile = profile
        self.version = version
        self.caution = caution
        self.least_gain = least_gain
        allowed = set(profile.adapters) if routable is None else routable
        self._rows = np.array(
            [i for i, a in enumerate(profile.adapters) if a in allowed], dtype=int
        )
        norms = np.linalg.norm(profile.centroids, axis=1, keepdims=True)
        self._centroids = profile.centroids / np.maximum(norms, 1e-12)

    @classmethod
    def from_registry(cls, registry: Registry) -> Self:
        """Open the newest profile of `registry`, with its adapters that are ready.

        Raises:
            RegistryError: nothing was profiled yet, or the stored profile is corrupt.
        """
        stored = registry.latest_profile()
        if stored is None:
            raise RegistryError("the registry holds no profile yet: run `traitroute profile SUITE`")
        ready = frozenset(a.name for a in registry.adapters(AdapterState.READY))
        return cls(RoutingProfile.from_bytes(stored.data), version=stored.version, routable=ready)

    def route(self, text: str) -> RoutingDecision:
        """Choose the adapter with the highest predicted gain, or base where none surely helps."""
        features = self.profile.features.transform([text])
        demand = self.profile.demand.predict(features)[0]
        error = self._error(features)
        ranking = self._ranking(demand, error)
        return self._decide(ranking, demand, self._nearest(features[0]))

    def _error(self, features: NDArray[np.float64]) -> float:
        """Standard error of a predicted gain: that of known requests, of new tasks, or beyond.

        Its square is a line in the ignorance, through what was measured on held-out requests and tasks.
        """
        p = self.profile
        ignorance = p.demand.ignorance(features, p.features.unseen_mass(features))[0]
        novelty = (ignorance - p.ignorance_known) / max(p.ignorance_new - p.ignorance_known, 1e-3)
        widening = max(p.error_new**2 - p.error_known**2, 0.0)
        return float(np.sqrt(p.error_known**2 + max(novelty, 0.0) * widening))

    def _ranking(self, demand: NDArray[np.float64], error: float) -> tuple[Affinity, ...]:
        gains = demand[0] + self.profile.trait_scores[self._rows] @ demand[1:]
        reach = self.caution * error
        return tuple(
            Affinity(
                adapter=self.profile.adapters[self._rows[i]],
                gain=float(gains[i]),
                low=float(gains[i] - reach),
                high=float(gains[i] + reach),
            )
            for i in np.argsort(-gains, kind="stable")
        )

    def _nearest(self, features: NDArray[np.float64], n: int = 3) -> tuple[NearTask, ...]:
        cosines = self._centroids @ features / max(float(np.linalg.norm(features)), 1e-12)
        order = np.argsort(-cosines, kind="stable")[:n]
        return tuple(
            NearTask(task=self.profile.tasks[i], similarity=float(cosines[i])) for i in order
        )

    def _decide(
        self,
        ranking: tuple[Affinity, ...],
        demand: NDArray[np.float64],
        nearest: tuple[NearTask, ...],
    ) -> RoutingDecision:
        best = ranking[0] if ranking else None
        chosen = best if best is not None and best.low > self.least_gain else None
        runner_up = ranking[1].gain if len(ranking) > 1 else self.least_gain
        return RoutingDecision(
            adapter=chosen.adapter if chosen else None,
            gain=chosen.gain if chosen else 0.0,
            interval=(chosen.low, chosen.high) if chosen else (0.0, 0.0),
            margin=chosen.gain - max(runner_up, 0.0) if chosen else -best.gain if best else 0.0,
            reason=_reason(best, chosen, nearest),
            demand=dict(zip(self._component_names(), map(float, demand[1:]), strict=True)),
            contributions=self._contributions(best, demand),
            nearest_tasks=nearest,
            ranking=ranking,
            profile_version=self.version,
        )

    def _contributions(
        self, best: Affinity | None, demand: NDArray[np.float64]
    ) -> dict[str, float]:
        if best is None:
            return {}
        supply = self.profile.trait_scores[self.profile.adapters.index(best.adapter)]
        parts = map(float, supply * demand[1:])
        return {"mean": float(demand[0])} | dict(zip(self._component_names(), parts, strict=True))

    def _component_names(self) -> list[str]:
        k, r = self.profile.n_traits, self.profile.trait_scores.shape[1]
        return [f"trait {i + 1}" if i < k else f"component {i + 1}" for i in range(r)]


def _reason(best: Affinity | None, chosen: Affinity | None, nearest: tuple[NearTask, ...]) -> str:
    like = f"; most like task {nearest[0].task}" if nearest else ""
    if best is None:
        return "base: no adapter is ready"
    if chosen is None:
        return (
            f"base: no adapter is sure to help, best is {best.adapter} at {best.gain:+.2f} "
            f"[{best.low:+.2f}, {best.high:+.2f}]{like}"
        )
    return (
        f"{best.adapter}: predicted gain {best.gain:+.2f} [{best.low:+.2f}, {best.high:+.2f}]{like}"
    )
