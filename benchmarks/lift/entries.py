"""Simulated entries of adapters as canaries: traffic, outcomes, and the steps that the product's functions ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from traitroute.serving.lift.canary import SHARES, Verdict, verdict_of
from traitroute.serving.lift.conversations import Conversations
from traitroute.serving.lift.report import ALPHA, Estimate

Array = NDArray[np.float64]

DAY_S, HOUR_S = 86_400.0, 3600.0
DAYS = 60
INCUMBENT = 0.6
ALIKE = 0.7
FIRST = 0.01
HORIZONS = (2, 8, DAYS)
"""Days of a share that are made and searched one after the other, for most steps come early."""


@dataclass(frozen=True)
class Adapter:
    """An adapter of a true `gain` over who would have answered, which becomes `later` from day `turns` on."""

    gain: float
    later: float | None = None
    turns: float = DAYS

    def gains(self, seconds: Array) -> Array:
        """Its gain at these times."""
        return np.where(seconds < self.turns * DAY_S, self.gain, self.gain if self.later is None else self.later)


@dataclass(frozen=True)
class Step:
    """On a `day` an adapter at a `share` had this `estimate`, of so many conversations, so many of them given to it."""

    day: float
    share: float
    verdict: Verdict
    estimate: Estimate
    conversations: int
    given: int


@dataclass(frozen=True)
class Ended:
    """How an entry ended after so many `days`.

    Of so many `conversations` that it would win, so many were `given` to it, and `lost` so many right answers that the
    incumbent would have given (below 0: gained).
    """

    how: Literal["promoted", "rolled back", "undecided"]
    days: float
    conversations: int
    given: int
    lost: float
    steps: Sequence[Step]


KINDS = {
    "good, +15 points": Adapter(0.15),
    "good, +5 points": Adapter(0.05),
    "equal": Adapter(0.0),
    "at the margin, -5 points": Adapter(-0.05),
    "worse, -10 points": Adapter(-0.10),
    "harmful, -25 points": Adapter(-0.25),
    "+10 points, then -15 from day 3 on": Adapter(0.10, later=-0.15, turns=3),
}


def entry(adapter: Adapter, daily: int, seed: int) -> Ended:
    """One adapter that enters at 1%, until it is promoted to all, rolled back, or out of time."""
    rng = np.random.default_rng(seed)
    begun, share, how = 0.0, FIRST, "undecided"
    conversations, given, lost = 0, 0, 0.0
    steps: list[Step] = []
    while how == "undecided" and begun < DAYS:
        traffic = _Traffic(adapter, daily, share, begun, rng)
        step = _first_step(traffic)
        ended = DAYS if step is None else step.day
        seen = traffic.times < ended * DAY_S
        own = traffic.drawn & seen
        conversations, given = conversations + int(seen.sum()), given + int(own.sum())
        lost -= float(adapter.gains(traffic.times[own]).sum())
        if step is not None:
            steps.append(step)
            share = next(s for s in SHARES if s > share)
            how = "rolled back" if step.verdict == "roll back" else "promoted" if share == 1 else "undecided"
        begun = ended
    return Ended(how, begun, conversations, given, lost, steps)


def _first_step(traffic: "_Traffic") -> Step | None:
    """The first step that an hourly look asks for."""
    upto = next(s for s in SHARES if s > traffic.share)
    looked = traffic.upto
    for days in HORIZONS:
        horizon = min(traffic.begun + days, DAYS)
        talks = traffic.extended(horizon)
        hours = np.arange(looked * 24 + 1, horizon * 24 + 1e-9) * HOUR_S
        looked = horizon
        if not talks.is_compared:
            continue
        looks = np.searchsorted(talks.known, hours, side="right")
        both = max(int(np.flatnonzero(talks.auto)[0]), int(np.flatnonzero(talks.base)[0]))
        hours, looks = hours[looks > both], looks[looks > both]
        if not len(looks):
            continue
        sums = talks.doubly_robust()[: looks[-1]].sums(looks)
        low, high = (np.clip(bound, -1, 1) for bound in (sums.low(ALPHA / 2), sums.high(ALPHA / 2)))
        for i, look in enumerate(looks):
            estimate = Estimate(gain=float(sums.mean[i]), low=float(low[i]), high=float(high[i]))
            verdict = verdict_of(estimate, upto)
            if verdict != "wait":
                given = int(talks.auto[:look].sum())
                return Step(float(hours[i]) / DAY_S, traffic.share, verdict, estimate, int(look), given)
    return None


class _Traffic:
    """Conversations from day `begun` on, so many `daily`, of which a `share` is drawn, made as far as they are needed.

    `times` (n,) are in seconds, `drawn` (n,) says which are the canary's.
    """

    def __init__(self, adapter: Adapter, daily: int, share: float, begun: float, rng: np.random.Generator) -> None:
        self.adapter, self.daily, self.share, self.begun, self.upto = adapter, daily, share, begun, begun
        self.times, self.drawn = np.empty(0), np.empty(0, bool)
        self._rng = rng
        self._told: list[tuple[Array, Array, NDArray[np.intp]]] = []

    def extended(self, day: float) -> Conversations:
        """All that is reported of conversations up to a day: one or more rewards each, joined as the product does."""
        rng, n = self._rng, int(self._rng.poisson(self.daily * (day - self.upto)))
        times = np.sort(rng.uniform(self.upto, day, n)) * DAY_S
        drawn = rng.random(n) < self.share
        place = np.repeat(np.arange(n), rng.geometric(0.6, n))
        first = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])[:n]
        means = INCUMBENT + np.where(drawn, self.adapter.gains(times), 0.0)
        right = (rng.random(len(place)) < means[place]).astype(np.float64)
        right = np.where(rng.random(len(place)) < ALIKE, right[first][place], right)
        later = rng.exponential(300.0, len(place))
        later[first] = 0
        known = times[place] + np.minimum(rng.exponential(1200.0, n), 6 * HOUR_S)[place] + later
        self._told.append((known, right, place + len(self.times)))
        self.times, self.drawn = np.r_[self.times, times], np.r_[self.drawn, drawn]
        self.upto = day
        return self._joined()

    def _joined(self) -> Conversations:
        known, right, place = (np.concatenate(parts) for parts in zip(*self._told, strict=True))
        told = self.drawn[place]
        rows = Conversations(
            known=known,
            reward=right,
            propensity=np.where(told, self.share, 1 - self.share),
            auto=told,
            base=~told,
            control=~told,
            policy=np.full(len(place), "canary", object),
            kind=np.full(len(place), "kind", object),
            level=np.full(len(place), 0.5),
        )
        return rows.joined(place, np.inf)
