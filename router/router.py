"""The router: request text → features → demand → affinity → an adapter, or the base model."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import isfinite
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..adapters import AdapterState, Registry, RegistryError, StoredProfile
from .decision import Affinity, Change, NearTask, RoutingDecision
from .features import Request, read_request
from .profile import RoutingProfile
from .request import NO_TEXT, says_something
from .training_profiles import KINDS, worth_of

Array = NDArray[np.float64]

RANKED = 10
"""How many adapters a decision lists by default."""


@dataclass(frozen=True)
class _Reading:
    """What was made of a request: the demand (1 + r,), what residuals of rows that joined say (routable,), the evidence
    (routable, kinds), gains (routable,), the reach of their intervals, and how likely it is of a new kind."""

    features: Array
    demand: Array
    own: Array
    evidence: Array
    gains: Array
    reach: float
    novelty: float


class Router:
    """Route requests with a fitted profile; read-only, so safe to share between threads.

    `routable` limits the choice to those adapters; `caution` is how many standard errors a predicted gain must
    lie above `least_gain` (score points) to be chosen over the base model: by default what the profile found to keep
    the share of harmed tasks within its risk.
    """

    def __init__(
        self,
        profile: RoutingProfile,
        *,
        version: int = 0,
        routable: frozenset[str] | None = None,
        caution: float | None = None,
        least_gain: float = 0.0,
    ) -> None:
        if caution is not None:
            profile = replace(profile, caution=caution, caution_known=caution)
        self.profile = profile
        self.version = version
        self.least_gain = least_gain
        allowed = set(profile.adapters) if routable is None else routable
        rows = [i for i, a in enumerate(profile.adapters) if a in allowed]
        self._names = [profile.adapters[i] for i in rows]
        self._supply = np.ascontiguousarray(profile.trait_scores[rows])
        residuals = profile.residuals[rows]
        self._joined = np.flatnonzero(residuals.any(axis=1))
        self._residuals = np.ascontiguousarray(residuals[self._joined])
        self._homes = profile.homes.take(rows)
        self._home_weights = profile.home_weights[rows]
        self._corrections = np.array([profile.corrections.get(name, 0.0) for name in self._names])
        k, r = profile.n_traits, profile.trait_scores.shape[1]
        self._parts = [f"trait {i + 1}" if i < k else f"component {i + 1}" for i in range(r)]
        norms = np.linalg.norm(profile.centroids, axis=1, keepdims=True)
        self._centroids = profile.centroids / np.maximum(norms, 1e-12)

    @classmethod
    def from_registry(cls, registry: Registry, stored: StoredProfile | None = None) -> Self:
        """Open the newest profile of `registry`, or one that was `stored` there, with its adapters that are ready.

        Raises:
            RegistryError: nothing was profiled yet, or the stored profile is corrupt.
        """
        stored = stored or registry.latest_profile()
        if stored is None:
            raise RegistryError("the registry holds no profile yet: run `traitroute profile SUITE`")
        ready = registry.adapter_names(AdapterState.READY)
        return cls(RoutingProfile.from_bytes(stored.data), version=stored.version, routable=ready)

    def route(
        self,
        request: Request,
        *,
        among: Collection[str] | None = None,
        least_gain: float | None = None,
        explain: bool = False,
        ranked: int = RANKED,
    ) -> RoutingDecision:
        """Choose the adapter with the highest predicted gain for a text, or base where none surely helps or the text says nothing.

        `among` limits this choice to some of the routable adapters; `least_gain` replaces the router's own; `ranked` is how
        many adapters the decision lists. With
        `explain` the decision also says what would change it, which takes longer with many adapters.
        """
        if isinstance(request, str) and not says_something(request):
            return RoutingDecision.base(NO_TEXT, profile_version=self.version)
        least = self.least_gain if least_gain is None else least_gain
        read = self._read(request)
        if among is not None:
            read = replace(read, gains=np.where(self._are_in(among), read.gains, -np.inf))
        order = [i for i in _best_first(read.gains, ranked) if isfinite(read.gains[i])]
        ranking = tuple(self._affinity(i, read) for i in order)
        best = order[0] if order else None
        chosen = ranking[0] if ranking and ranking[0].low > least else None
        nearest = self._nearest(read.features)
        return RoutingDecision(
            adapter=chosen.adapter if chosen else None,
            gain=chosen.gain if chosen else 0.0,
            interval=(chosen.low, chosen.high) if chosen else (0.0, 0.0),
            margin=_margin(ranking, chosen, least),
            reason=_reason(ranking[0] if ranking else None, chosen, nearest),
            demand=dict(zip(self._parts, read.demand[1:].tolist(), strict=True)),
            contributions={} if best is None else self._contributions(best, read),
            nearest_tasks=nearest,
            ranking=ranking,
            profile_version=self.version,
            novelty=read.novelty,
            change=self._change(read, best if chosen else None, least) if explain else None,
        )

    def _are_in(self, names: Collection[str]) -> NDArray[np.bool_]:
        kept = frozenset(names)
        return np.fromiter((name in kept for name in self._names), bool, len(self._names))

    def _read(self, request: Request) -> _Reading:
        p = self.profile
        marks = read_request(request)
        features = p.features.row(marks)
        unseen = p.features.unseen_mass(features)
        # What profiled requests have taught holds for requests like them; of others only evidence speaks.
        new = p.novelty.share(unseen)
        novelty = float(new)
        asked, r = p.demand.at(features) * (1 - novelty), 1 + len(self._parts)
        demand, own = asked[:r], np.zeros(len(self._names))
        own[self._joined] = self._residuals @ asked[r:].astype(np.float32)
        evidence = self._homes.row(features, marks)
        gains = demand[0] + self._supply @ demand[1:] + own + worth_of(evidence, self._home_weights) + self._corrections
        reach = float(p.reach(new))
        return _Reading(features, demand, own, evidence, gains, reach, novelty)

    def _affinity(self, i: int, read: _Reading) -> Affinity:
        gain = float(read.gains[i])
        low, high = max(gain - read.reach, -1.0), min(gain + read.reach, 1.0)
        return Affinity(adapter=self._names[i], gain=gain, low=low, high=high)

    def _nearest(self, features: Array, n: int = 3) -> tuple[NearTask, ...]:
        cosines = self._centroids @ features / max(float(np.linalg.norm(features)), 1e-12)
        return tuple(
            NearTask(task=self.profile.tasks[i], similarity=float(cosines[i])) for i in _best_first(cosines, n)
        )

    def _contributions(self, best: int, read: _Reading) -> dict[str, float]:
        parts = (self._supply[best] * read.demand[1:]).tolist()
        known = dict(zip(KINDS, (read.evidence[best] * self._home_weights[best]).tolist(), strict=True))
        learnt = {"feedback": float(self._corrections[best])} if self.profile.corrections else {}
        if best in self._joined:
            learnt["own row"] = float(read.own[best])
        return {
            "mean": float(read.demand[0]),
            **dict(zip(self._parts, parts, strict=True)),
            **known,
            **learnt,
        }

    def _change(self, read: _Reading, chosen: int | None, least: float) -> Change | None:
        """The nearest place, along one part of the demand, where another adapter, or base, is chosen."""
        if not np.isfinite(read.gains).any():
            return None
        # Gains move by one with the mean, and by its supply with each component.
        supply = np.hstack([np.ones((len(self._names), 1)), self._supply])
        if chosen is None:
            lack, slope, rivals = least + read.reach - read.gains, supply, self._names
        else:
            # Base comes last: it takes over where the chosen adapter's own low end falls to the least gain.
            lack = np.append(
                read.gains[chosen] - read.gains,
                least + read.reach - read.gains[chosen],
            )
            slope = np.vstack([supply - supply[chosen], supply[chosen]])
            rivals = [*self._names, None]
        usable = np.abs(slope) > 1e-12
        shift = np.where(usable, lack[:, None] / np.where(usable, slope, 1.0), np.inf)
        i, j = np.unravel_index(np.argmin(np.abs(shift)), shift.shape)
        now = float(read.demand[j])
        part = ["mean", *self._parts][j]
        return Change(adapter=rivals[i], part=part, demand=now, needed=now + float(shift[i, j]))


def _best_first(values: Array, n: int) -> list[int]:
    """Places of the `n` highest values; equal ones in their order."""
    if len(values) > 4 * n:
        kept = np.sort(np.argpartition(-values, n - 1)[:n])
        return kept[np.argsort(-values[kept], kind="stable")].tolist()
    return np.argsort(-values, kind="stable")[:n].tolist()


def _margin(ranking: tuple[Affinity, ...], chosen: Affinity | None, least_gain: float) -> float:
    if chosen is None:
        return -ranking[0].gain if ranking else 0.0
    runner_up = ranking[1].gain if len(ranking) > 1 else least_gain
    return chosen.gain - max(runner_up, 0.0)


def _reason(best: Affinity | None, chosen: Affinity | None, nearest: tuple[NearTask, ...]) -> str:
    like = f"; most like task {nearest[0].task}" if nearest else ""
    if best is None:
        return "base: no adapter is ready"
    if chosen is None:
        return (
            f"base: no adapter is sure to help, best is {best.adapter} at {best.gain:+.2f} "
            f"[{best.low:+.2f}, {best.high:+.2f}]{like}"
        )
    return f"{best.adapter}: predicted gain {best.gain:+.2f} [{best.low:+.2f}, {best.high:+.2f}]{like}"
