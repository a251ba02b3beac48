"""Made-up and measured traffic, and months of it: conversations, who answered them, and what was reported of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from traitroute.serving.lift.conversations import Conversations

Array = NDArray[np.float64]
Places = NDArray[np.intp]

DAY_S = 86_400.0
DAYS = 30


@dataclass(frozen=True)
class Requests:
    """r requests: their `kind` (r,), auto's choice `policy` (r,), a number from 0, or -1 for base, and `level` (r,).

    `base` and `auto` (r,) are the mean rewards of what base, and auto's choice, answer.
    """

    kind: Places
    policy: Places
    level: Array
    base: Array
    auto: Array


@dataclass(frozen=True)
class World:
    """How `requests` come in a month, and what is reported of them.

    `conversations` have an outcome in a month; `holdback` is the share that base answers. Of the further rewards of a
    conversation, `alike` are as its first. Rewards are `least` + (1 - least) times the score. From the middle of the
    month on, the gain of auto's choice falls by `decay`, evenly until the month ends.
    """

    requests: Callable[[], Requests]
    conversations: int = 6_000
    holdback: float = 0.05
    alike: float = 0.7
    least: float = 0.0
    decay: float = 0.0


@dataclass(frozen=True)
class Month:
    """The conversations of a month as the product reads them, and the true gain expected of each, (n,)."""

    conversations: Conversations
    gains: Array


def simulate(world: World, seed: int) -> Month:
    """A month of traffic, its rewards, and their joining into conversations by the product's own function."""
    rng = np.random.default_rng(seed)
    asked, n = world.requests(), world.conversations
    row = rng.integers(len(asked.kind), size=n)
    begun = times(n, rng)
    held_back = rng.random(n) < world.holdback
    base = held_back | (asked.policy[row] < 0)
    auto = ~held_back | (asked.policy[row] < 0)
    faded = world.decay * np.clip(begun / (DAYS * DAY_S) - 0.5, 0, 0.5) * 2 * (asked.policy[row] >= 0)
    means = np.stack([asked.base[row], np.clip(asked.auto[row] - faded, 0, 1)])
    turns = rng.geometric(0.6, n)
    place = np.repeat(np.arange(n), turns)
    first = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])
    right = (rng.random(len(place)) < means[np.where(auto, 1, 0)[place], place]).astype(np.float64)
    right = np.where(rng.random(len(place)) < world.alike, right[first][place], right)
    later = rng.exponential(300.0, len(place))
    later[first] = 0
    known = begun[place] + np.minimum(rng.exponential(1200.0, n), 6 * 3600)[place] + later
    rows = Conversations(
        known=known,
        reward=world.least + (1 - world.least) * right,
        propensity=np.where(asked.policy[row] < 0, 1.0, np.where(held_back, world.holdback, 1 - world.holdback))[place],
        auto=auto[place],
        base=base[place],
        control=(held_back & (asked.policy[row] >= 0))[place],
        policy=_POLICIES[asked.policy[row][place]],
        kind=_KINDS[asked.kind[row][place]],
        level=asked.level[row][place],
    )
    # The number of a conversation travels as its reward would: in the order in which it came to count.
    whole = rows.joined(place, np.inf)
    settled = np.argsort(known[first], kind="stable")
    gains = (1 - world.least) * (means[1] - means[0]) * (asked.policy[row] >= 0)
    return Month(whole, gains[settled])


_KINDS = np.array([f"kind {i}" for i in range(64)], object)
_POLICIES = np.array([*(f"adapter {i}" for i in range(63)), None], object)


def times(n: int, rng: np.random.Generator) -> Array:
    """When conversations begin, in seconds: thrice as many at noon as at midnight."""
    tried = rng.random(3 * n) * DAYS * DAY_S
    kept = tried[rng.random(3 * n) < 0.5 - 0.25 * np.cos(2 * np.pi * tried / DAY_S)]
    return np.sort(kept[:n])


def made_up(base: float, gain: float, *, level: float | None = None, kinds: int = 8, to_base: float = 0.4) -> Requests:
    """Requests of several kinds, about `base` and `gain` on average; a share of each kind is auto's base choice."""
    kind = np.repeat(np.arange(kinds), 20)
    spread = np.linspace(-1, 1, kinds)[kind]
    means = np.clip(base + 0.3 * min(base, 1 - base) * spread, 0, 1)
    policy = np.where(np.arange(len(kind)) % 20 < 20 * to_base, -1, kind % 4)
    auto = np.where(policy < 0, means, np.clip(means + gain * (1 + spread), 0, 1))
    levels = means if level is None else np.full(len(kind), level)
    return Requests(kind, policy, levels, means, auto)


@cache
def measured() -> Requests:
    """What base and the router's choice answer to requests it was not fitted on, right (1) or wrong (0)."""
    from learning.world import World as Measured
    from routing.table import SMOLLM2

    world = Measured.measured(SMOLLM2)
    chosen = world.chosen(world.gains)
    rows = np.arange(len(chosen))
    kind = np.unique(world.level, return_inverse=True)[1]
    return Requests(kind, chosen - 1, world.level, world.right[:, 0], world.right[rows, chosen])


WORLDS = {
    "measured outcomes": World(measured),
    "no gain at all": World(lambda: made_up(0.6, 0.0)),
    "a gain of 6 points": World(lambda: made_up(0.6, 0.1)),
    "base nearly always right": World(lambda: made_up(0.97, -0.02)),
    "adapters decay": World(lambda: made_up(0.5, 0.2), decay=0.4),
    "1% held back": World(lambda: made_up(0.6, 0.1), holdback=0.01, conversations=20_000),
    "half held back": World(lambda: made_up(0.6, 0.1), holdback=0.5, conversations=2_000),
    "rewards kinder than scores": World(lambda: made_up(0.4, 0.1), least=0.4),
    "a profile that knows nothing": World(lambda: made_up(0.6, 0.1, level=0.0)),
    "long conversations, all alike": World(lambda: made_up(0.6, 0.1), alike=1.0),
}
