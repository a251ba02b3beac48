"""Days of traffic in a world where something changes, under a policy that learns every evening."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .policies import Policy, Reports
from .world import World

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

DAY, REPORTED, WINDOW = 1_000, 5, 10
"""Requests a day, of which one in so many is rewarded; outcomes count for so many days."""
DAYS, CHANGE = 20, 5
KEYS, FLOOD = 5, 1_000
NEW_SHARE = 0.3


@dataclass(frozen=True)
class Scenario:
    """What becomes of a world from day CHANGE on: `change` gives its outcomes then, (n, 1 + a).

    With `new_kinds` some of the requests are of kinds that no task covers. With `liar` one of KEYS keys says 0 of what
    adapter `target` answers and 1 of what base does, and reports FLOOD made-up outcomes a day besides.
    """

    change: Callable[[World, int, np.random.Generator], Array] = lambda world, target, rng: world.right
    new_kinds: bool = False
    liar: bool = False


@dataclass(frozen=True)
class Life:
    """`regret` (days,), in score points a request, against the best column of each data set; `gains` (data sets,) over
    base in the end."""

    regret: Array
    gains: Array


def live(world: World, scenario: Scenario, policy: Policy, *, target: int, seed: int) -> Life:
    """Days of traffic; `target` is the adapter that the scenario is about."""
    rng = np.random.default_rng(seed)
    right = scenario.change(world, target, np.random.default_rng((seed, 1)))
    old, new = np.flatnonzero(~world.novel), np.flatnonzero(world.novel)
    days: list[Reports] = []
    regret = np.empty(DAYS)
    for day in range(DAYS):
        changed = day >= CHANGE
        outcomes = right if changed else world.right
        asked = rng.choice(old, DAY)
        if changed and scenario.new_kinds:
            asked = np.where(rng.random(DAY) < NEW_SHARE, rng.choice(new, DAY), asked)
        columns = policy.columns()
        held_back = rng.random(DAY) < policy.holdback
        chosen = np.where(held_back, 0, columns[asked])
        by_base = columns[asked] == 0
        propensity = np.where(by_base, 1.0, np.where(held_back, policy.holdback, 1 - policy.holdback))
        rewards = outcomes[asked, chosen]
        regret[day] = (best(world, outcomes)[asked] - rewards).mean()
        heard = rng.random(DAY) < 1 / REPORTED
        reports = Reports(
            asked[heard], chosen[heard], propensity[heard], rewards[heard], rng.integers(KEYS, size=heard.sum())
        )
        days.append(_with_lies(reports, old, target, rng) if scenario.liar and changed else reports)
        policy.learn(days[-1].join(days[-WINDOW:-1]))
    rows = np.arange(len(right))
    gains = right[rows, policy.columns()] - right[:, 0]
    counted = ~world.novel | scenario.new_kinds
    names = world.names[counted]
    return Life(regret, np.array([gains[counted][names == name].mean() for name in np.unique(names)]))


def best(world: World, outcomes: Array) -> Array:
    """The mean outcome (n,) of the best column of each request's data set."""
    _, place = np.unique(world.names, return_inverse=True)
    sums = np.array([np.bincount(place, column) for column in outcomes.T])
    return (sums / np.bincount(place)).max(axis=0)[place]


def _with_lies(reports: Reports, old: Rows, target: int, rng: np.random.Generator) -> Reports:
    """The same where key 0 lies, and reports more than it was asked."""
    liar = reports.keys == 0
    lies = np.where(reports.chosen == 1 + target, 0.0, np.where(reports.chosen == 0, 1.0, reports.rewards))
    told = Reports(
        reports.asked, reports.chosen, reports.propensity, np.where(liar, lies, reports.rewards), reports.keys
    )
    chosen = np.where(rng.random(FLOOD) < 0.5, 0, 1 + target)
    flood = Reports(rng.choice(old, FLOOD), chosen, np.ones(FLOOD), (chosen == 0) * 1.0, np.zeros(FLOOD, np.intp))
    return told.join([flood])


def decays(world: World, target: int, rng: np.random.Generator) -> Array:
    """The adapter `target` loses half of its right answers."""
    right = world.right.copy()
    right[rng.random(len(right)) < 0.5, 1 + target] = 0.0
    return right


def decays_on_half(world: World, target: int, rng: np.random.Generator) -> Array:
    """The adapter `target` loses all right answers on half of the data sets."""
    right = world.right.copy()
    names = np.unique(world.names)
    right[np.isin(world.names, names[rng.random(len(names)) < 0.5]), 1 + target] = 0.0
    return right


SCENARIOS = {
    "nothing changes": Scenario(),
    "an adapter loses half of its right answers": Scenario(decays),
    "an adapter loses all on half of the data sets": Scenario(decays_on_half),
    "new kinds, 30% of requests": Scenario(new_kinds=True),
    "one key of five lies and floods": Scenario(liar=True),
}
