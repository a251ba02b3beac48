"""Requests for adapters on many replicas, one arrival after another.

A replica answers `SEATS` requests at a time, in the order in which they came, and holds so many adapters, of which the
one asked for longest ago makes room. A request waits for a seat, and then for its adapter where that has to be loaded;
a second request for an adapter that is being loaded waits for the same load. A request's time in its seat does not
depend on the others: batching is taken to be free up to the number of seats, and prefill to be a part of the answer.

An arrival needs no event of its own: seats are taken in order of arrival, so when a request will begin is known when it
comes. What is not modelled: conversations (prefix caches), the adapters' sizes, and replicas of unlike speed.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

SEATS = 16
QUEUE = 4096
"""Requests that a replica can have; beyond that one is counted as lost."""
CHOICES = 8
"""So many adapters of a request may be tied."""
PROBES = 64
"""So many replicas in the order of an adapter's hash are looked at before the least busy of two is taken."""
POLICIES = ("least of two", "hash", "affinity", "bounded affinity", "bounded affinity, ties")
_NONE = -1
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arrivals:
    """n requests: when they come (s), how long each needs a seat (s), and the adapters that may answer, best first, of
    equal worth (n, `CHOICES`), -1 where there are fewer.
    """

    at: Floats
    service: Floats
    adapters: Ints

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True)
class Served:
    """What became of n requests: which adapter answered, which replica, whether it held the adapter, and the wait (s)
    until the answer began, infinite where the request was lost.
    """

    adapter: Ints
    replica: Ints
    held: NDArray[np.bool_]
    wait: Floats


def simulate(
    arrivals: Arrivals,
    policy: str,
    *,
    replicas: int,
    slots: int,
    load_s: float,
    slack: float = 2.0,
    deaths: tuple[float, float] = (np.inf, 0.0),
    seed: int = 0,
) -> Served:
    """Serve the arrivals.

    `slack` is how many more requests than the mean a replica may have and still be gone to for its adapter. `deaths`
    are a time and the share of the replicas that die then, with what they hold; what they had begun is begun anew
    elsewhere and counted at its first arrival.
    """
    found = _simulate(
        arrivals.at,
        arrivals.service,
        arrivals.adapters,
        POLICIES.index(policy),
        replicas,
        slots,
        load_s,
        slack,
        deaths[0],
        int(replicas * deaths[1]),
        seed,
    )
    return Served(*found)


@njit(cache=True)
def _mixed(a: int, b: int) -> int:
    x = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) * np.uint64(0xC2B2AE3D27D4EB4F)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
    return int((x ^ (x >> np.uint64(29))) >> np.uint64(1))


@njit(cache=True)
def _place(adapter: int, probe: int, replicas: int) -> int:
    """The replica that an adapter's hash names in the `probe`-th place."""
    return int(_mixed(adapter + 1, probe + 1) % replicas)


@njit(cache=True)
def _find(held: Ints, adapter: int) -> int:
    for i in range(len(held)):
        if held[i] == adapter:
            return i
    return _NONE


@njit(cache=True)
def _simulate(at, service, adapters, policy, replicas, slots, load_s, slack, dies_at, dying, seed):
    np.random.seed(seed)
    n = len(at)
    chosen, gone_to = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    hit, wait = np.zeros(n, np.bool_), np.full(n, np.inf)
    free = np.zeros((replicas, SEATS))
    # Heaps of when the requests that each replica has will end, and of all.
    ends, busy = np.full((replicas, QUEUE), np.inf), np.zeros(replicas, np.int64)
    every, total = np.full((1, replicas * QUEUE), np.inf), np.zeros(1, np.int64)
    held = np.full((replicas, slots), -1, np.int64)
    used, ready = np.zeros((replicas, slots)), np.zeros((replicas, slots))
    alive = np.ones(replicas, np.bool_)
    dead = 0
    again = np.empty(0, np.int64)
    last_end, came = np.zeros(n), 0
    # Each adapter's holders, for the policy that knows them: a few, the newest ones.
    top = 0
    for row in adapters:
        for a in row:
            top = max(top, a)
    holders = np.full((top + 1, 16), -1, np.int64)
    pending, first = 0, 0
    i = 0
    while i < n or pending > 0:
        if pending > 0:
            k, now = again[first], dies_at
            first += 1
            pending -= 1
        else:
            k, now = i, at[i]
            if now >= dies_at and dead == 0 and dying > 0:
                order = np.random.permutation(replicas)[:dying]
                for r in order:
                    alive[r] = False
                    held[r, :] = -1
                dead = dying
                lost = np.zeros(i, np.bool_)
                for j in range(i):
                    lost[j] = last_end[j] > dies_at and not alive[gone_to[j]]
                again = np.flatnonzero(lost)
                pending, first = len(again), 0
                if pending > 0:
                    continue
            i += 1
        _settle(every, total, 0, now)
        mean = total[0] / (replicas - dead)
        choice, replica = adapters[k, 0], _NONE
        if policy == 4:
            for c in range(adapters.shape[1]):
                a = adapters[k, c]
                if a < 0:
                    break
                r = _place(a, 0, replicas)
                _settle(ends, busy, r, now)
                if alive[r] and busy[r] <= mean + slack and _find(held[r], a) >= 0:
                    choice, replica = a, r
                    break
        if policy == 1:
            for probe in range(PROBES):
                r = _place(choice, probe, replicas)
                if alive[r]:
                    replica = r
                    _settle(ends, busy, r, now)
                    break
        elif policy == 2:
            for h in range(holders.shape[1]):
                r = holders[choice, h]
                if r >= 0 and alive[r] and _find(held[r], choice) >= 0:
                    _settle(ends, busy, r, now)
                    if replica < 0 or busy[r] < busy[replica]:
                        replica = r
        elif policy >= 3 and replica < 0:
            for probe in range(PROBES):
                r = _place(choice, probe, replicas)
                _settle(ends, busy, r, now)
                if alive[r] and busy[r] <= mean + slack:
                    replica = r
                    break
        if replica < 0:
            one, other = _living(alive), _living(alive)
            _settle(ends, busy, one, now)
            _settle(ends, busy, other, now)
            replica = one if busy[one] <= busy[other] else other
        chosen[k], gone_to[k] = choice, replica
        if busy[replica] >= QUEUE:
            continue
        slot = _find(held[replica], choice)
        hit[k] = slot >= 0
        if slot < 0:
            slot = np.argmin(used[replica])
            old = held[replica, slot]
            if old >= 0:
                for h in range(holders.shape[1]):
                    if holders[old, h] == replica:
                        holders[old, h] = -1
            held[replica, slot] = choice
            came += 1
            holders[choice, came % holders.shape[1]] = replica
        seat = np.argmin(free[replica])
        begins = max(now, free[replica, seat])
        if not hit[k]:
            ready[replica, slot] = begins + load_s
        begins = max(begins, ready[replica, slot])
        used[replica, slot] = now
        free[replica, seat] = begins + service[k]
        wait[k] = begins - at[k]
        last_end[k] = begins + service[k]
        _push(ends, busy, replica, last_end[k])
        _push(every, total, 0, last_end[k])
    return chosen, gone_to, hit, wait


@njit(cache=True)
def _living(alive):
    while True:
        r = np.random.randint(len(alive))
        if alive[r]:
            return r


@njit(cache=True)
def _settle(ends, busy, r, now):
    """Take off what has ended."""
    heap = ends[r]
    while busy[r] > 0 and heap[0] <= now:
        busy[r] -= 1
        moved, place = heap[busy[r]], 0
        heap[busy[r]] = np.inf
        while True:
            child = 2 * place + 1
            if child >= busy[r]:
                break
            if child + 1 < busy[r] and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= moved:
                break
            heap[place] = heap[child]
            place = child
        if busy[r] > 0:
            heap[place] = moved


@njit(cache=True)
def _push(ends, busy, r, end):
    heap, place = ends[r], busy[r]
    busy[r] += 1
    while place > 0 and heap[(place - 1) // 2] > end:
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
    heap[place] = end
