"""The router: from a request to an adapter, or to the base model where no adapter is sure to help."""

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..adapters import Registry, RegistryError, StoredProfile
from .decision import NOVEL, Affinity, NearTask, RoutingDecision
from .profile import Prediction, RoutingProfile
from .request import NO_TEXT, Request
from .text import says_something

RANKED = 10
"""How many adapters a decision lists by default."""

NEAR_TASKS = 3


@dataclass(frozen=True)
class Choices:
    """What a router chooses for n requests, without its reasons: places among `adapters`, -1 for base, `chosen` (n,).

    `gains` (n, adapters) are predicted in score points, minus infinity where a request does not admit the adapter;
    `errors` (n,) are their standard errors. `nearest` (n,) are places of the most similar profiled tasks, and `novelty`
    (n,) is as in a decision.
    """

    adapters: tuple[str, ...]
    chosen: NDArray[np.intp]
    gains: NDArray[np.float64]
    errors: NDArray[np.float64]
    nearest: NDArray[np.intp]
    novelty: NDArray[np.float64]

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each adapter."""
        return {name: i for i, name in enumerate(self.adapters)}


class Router:
    """Route requests with a fitted profile; read-only, so safe to share between threads.

    `routable` limits the choice to those adapters. `z` is how many standard errors a predicted gain must lie above
    `least_gain` (score points) to be chosen over the base model: by default what the profile calibrated to keep the
    share of harmed data sets within its risk.
    """

    def __init__(
        self,
        profile: RoutingProfile,
        *,
        version: int = 0,
        routable: frozenset[str] | None = None,
        z: float | None = None,
        least_gain: float = 0.0,
    ) -> None:
        if z is not None:
            profile = replace(profile, z=z)
        self.profile = profile
        self.version = version
        self.least_gain = least_gain
        self._routable = profile
        if routable is not None and not routable.issuperset(profile.adapters):
            self._routable = profile.take([i for i, name in enumerate(profile.adapters) if name in routable])
        self._places = {name: i for i, name in enumerate(self._routable.adapters)}
        # Which of the routable adapters may be chosen (None: all).
        self._open: NDArray[np.bool_] | None = None

    @classmethod
    def from_registry(cls, registry: Registry, stored: StoredProfile | None = None) -> Self:
        """Open the newest profile of `registry`, or one that was `stored` there, with its adapters that are ready.

        Raises:
            RegistryError: nothing was profiled yet, or the stored profile is corrupt.
        """
        stored = stored or registry.latest_profile()
        if stored is None:
            raise RegistryError("the registry holds no profile yet: run `traitroute profile SUITE`")
        routable = registry.routable_names()
        return cls(RoutingProfile.from_bytes(stored.data), version=stored.version, routable=routable)

    def limited_to(self, names: Collection[str]) -> Self:
        """The same router, which knows of these adapters alone; the profile is shared."""
        limited = copy(self)
        limited._open = self._are_in(names)
        return limited

    def predict(self, request: Request) -> Prediction | None:
        """What the profile predicts of a request, to `route` it more than once; None where its text says nothing."""
        if isinstance(request, str) and not says_something(request):
            return None
        return self._routable.predict(request)

    def route(
        self,
        request: Request | Prediction | None,
        *,
        among: Collection[str] | None = None,
        least_gain: float | None = None,
        explain: bool = False,
        ranked: int = RANKED,
        held: Collection[str] = (),
        worth: float = 0.0,
    ) -> RoutingDecision:
        """Choose the adapter with the highest predicted gain, or base where none surely helps or the text says nothing.

        The request may be given as what `predict` says of it, which takes most of the time.
        `among` limits this choice to some of the routable adapters; `least_gain` replaces the router's own; `ranked` is
        how many adapters the decision lists. With `explain` it also says what would change it, which takes longer with
        many adapters.

        Of the adapters `held`, which need not be loaded, the best is chosen in place of the best of all where that is
        not held, gives up no more than `worth` of predicted gain and no more than its error, and surely helps too.
        """
        prediction = request if isinstance(request, Prediction | None) else self.predict(request)
        if prediction is None:
            return RoutingDecision.base(NO_TEXT, profile_version=self.version)
        least = self.least_gain if least_gain is None else least_gain
        profile = self._routable
        admitted = self._open if among is None else self._are_in(among)
        if admitted is not None:
            prediction = replace(prediction, gains=np.where(admitted, prediction.gains, -np.inf))
        gains, caution = prediction.gains, float(prediction.margin)
        # What is chosen goes by the profile's z alone; how sure a prediction is has its error to say even where z is 0.
        reach = float(prediction.error) * max(profile.z, 1.0)
        order = [i for i in _best_first(gains, ranked) if isfinite(gains[i])]
        ranking = _affinities(profile.adapters, order, gains, reach)
        best = order[0] if order else None
        place = first = best if best is not None and gains[best] - caution > least else None
        if first is not None and held and profile.adapters[first] not in held:
            other = self._best_held(held, gains)
            if (
                other is not None
                and gains[other] >= gains[first] - min(worth, reach)
                and gains[other] - caution > least
            ):
                place = other
        chosen = None if place is None else ranking[0]
        if place is not None and place != best:
            (chosen,) = _affinities(profile.adapters, [place], gains, reach)
        likeness, novelty, recurring = prediction.likeness, prediction.novelty, prediction.recurring
        nearest = tuple(
            NearTask(task=profile.tasks[i], similarity=float(likeness[i])) for i in _best_first(likeness, NEAR_TASKS)
        )
        like = f"most like task {nearest[0].task}" if novelty < NOVEL else "like nothing profiled"
        if prediction.everyday >= 0.5:
            like = "an everyday request"
        if recurring is not None:
            like = f"of the recurring kind {recurring}, judged"
        return RoutingDecision(
            adapter=chosen.adapter if chosen else None,
            gain=chosen.gain if chosen else 0.0,
            interval=(chosen.low, chosen.high) if chosen else (0.0, 0.0),
            margin=_lead(ranking, chosen, least),
            reason=_reason(ranking[0] if ranking else None, chosen, like),
            demand=dict(zip(profile.components, prediction.demand[1:].tolist(), strict=True)),
            contributions={} if best is None else _adding_up(prediction.parts(best), ranking[0].gain),
            nearest_tasks=nearest,
            ranking=ranking,
            profile_version=self.version,
            novelty=novelty,
            everyday=float(prediction.everyday),
            recurring=recurring,
            caution=caution,
            instead_of=profile.adapters[first] if first is not None and place != first else None,
            change=prediction.change(place, least) if explain and place == first else None,
        )

    def _best_held(self, held: Collection[str], gains: NDArray[np.float64]) -> int | None:
        """The place of the best of the adapters `held`, of those that may be chosen."""
        places = [place for name in held if isfinite(gains[place := self._places.get(name, -1)]) and place >= 0]
        return max(places, key=lambda place: gains[place], default=None)

    def choose(
        self,
        requests: Sequence[Request] | NDArray[np.float64],
        *,
        among: Sequence[Collection[str] | None] | None = None,
        least_gains: Sequence[float | None] | None = None,
    ) -> Choices:
        """Choose for n requests at once as `route` does, some twenty times faster; each must say something.

        Of requests only their features (n, p) may be known. `among` and `least_gains` are those of each request, None
        where it asks for nothing.
        """
        profile, n = self._routable, len(requests)
        known = isinstance(requests, np.ndarray)
        prediction = profile.predict_features(requests) if known else profile.predict_many(requests)
        gains = prediction.gains
        for row, names in enumerate(among or [None] * n):
            if (admitted := self._open if names is None else self._are_in(names)) is not None:
                gains[row, ~admitted] = -np.inf
        least = np.array([self.least_gain if gain is None else gain for gain in least_gains or [None] * n])
        chosen = np.full(n, -1)
        if profile.adapters:
            chosen, best = gains.argmax(axis=1), gains.max(axis=1)
            sure = np.isfinite(best) & (best - prediction.margin > least)
            chosen = np.where(sure, chosen, -1)
        likeness = prediction.likeness
        return Choices(
            profile.adapters, chosen, gains, prediction.error, likeness.argmax(axis=1), 1 - likeness.max(axis=1)
        )

    def _are_in(self, names: Collection[str]) -> NDArray[np.bool_]:
        kept, adapters = frozenset(names), self._routable.adapters
        places = np.fromiter((name in kept for name in adapters), bool, len(adapters))
        return places if self._open is None else places & self._open


def _affinities(
    adapters: Sequence[str], places: list[int], gains: NDArray[np.float64], reach: float
) -> tuple[Affinity, ...]:
    # Chosen by what is predicted; told is no more than a score from 0 to 1 can gain or lose.
    spans = gains[places, None] + (0.0, -reach, reach)
    told = np.minimum(np.maximum(spans, -1.0), 1.0).tolist()
    return tuple(
        Affinity(adapter=adapters[i], gain=gain, low=low, high=high)
        for i, (gain, low, high) in zip(places, told, strict=True)
    )


def _adding_up(parts: dict[str, float], gain: float) -> dict[str, float]:
    """The parts of a predicted gain, with what is left of it as `bound` where no score can change by so much."""
    return parts if abs(gain) < 1 else parts | {"bound": gain - sum(parts.values())}


def _best_first(values: NDArray[np.float64], n: int) -> list[int]:
    """Places of the `n` highest values; equal ones in their order."""
    if len(values) > 4 * n:
        kept = np.sort(np.argpartition(-values, n - 1)[:n])
        return kept[np.argsort(-values[kept], kind="stable")].tolist()
    return np.argsort(-values, kind="stable")[:n].tolist()


def _lead(ranking: tuple[Affinity, ...], chosen: Affinity | None, least_gain: float) -> float:
    """How far the chosen adapter, or base, lies above the next best; below zero of one chosen since it is loaded."""
    if chosen is None:
        return -ranking[0].gain if ranking else 0.0
    runner_up = next((each.gain for each in ranking if each.adapter != chosen.adapter), least_gain)
    return chosen.gain - max(runner_up, 0.0)


def _reason(best: Affinity | None, chosen: Affinity | None, like: str) -> str:
    if best is None:
        return "base: no adapter is ready"
    interval = f"{best.gain:+.2f} [{best.low:+.2f}, {best.high:+.2f}]; {like}"
    if chosen is None:
        return f"base: no adapter is sure to help, best is {best.adapter} at {interval}"
    if chosen.adapter != best.adapter:
        return f"{chosen.adapter}: loaded, at {chosen.gain:+.2f} as good as {best.adapter}: predicted gain {interval}"
    return f"{best.adapter}: predicted gain {interval}"
