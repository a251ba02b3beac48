"""Which adapters a fleet's requests are for: by Zipf's law, or as the router chooses among adapters drawn like ours."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from routing.fleet import Fleet
from traitroute.router import Router

from .simulation import CHOICES, SEATS, Arrivals

PREFILL_S, DECODE_S = 1 / 4000, 0.02
"""Seconds a token read and a token written: of a GPU server under load, in round numbers."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Demand:
    """Kinds of requests: how often each comes (k,), the adapters that answer it as well, best first (k, `CHOICES`), and
    the score that each of these has (k, `CHOICES`).
    """

    name: str
    share: Floats
    adapters: NDArray[np.int64]
    scores: Floats


def zipf(adapters: int, skew: float) -> Demand:
    """One kind for each adapter, the k-th commonest with a share by 1 / k ** skew."""
    weights = 1 / np.arange(1, adapters + 1) ** skew
    only = np.full((adapters, CHOICES), -1, np.int64)
    only[:, 0] = np.arange(adapters)
    return Demand(f"Zipf {skew:.1f}", weights / weights.sum(), only, np.zeros((adapters, CHOICES)))


def routed(adapters: int, worth: float, seed: int = 0) -> Demand:
    """The measured requests, as the router chooses among drawn adapters; those are tied whose predicted gains are
    within `worth` (score, 0 to 1) of the best.
    """
    from ties import drawn_router

    router, marks, scores, _ = drawn_router(Fleet(seed=seed), adapters)
    chosen, worths = [], []
    for start in range(0, len(marks), 64):
        gains = _gains(router, marks[start : start + 64])
        best = np.argsort(-gains, axis=1)[:, :CHOICES]
        near = np.take_along_axis(gains, best, axis=1) >= gains.max(axis=1, keepdims=True) - worth
        chosen.append(np.where(near, best, -1))
        worths.append(np.take_along_axis(scores[start : start + 64, 1:], best, axis=1))
    names = np.concatenate(chosen).astype(np.int64)
    return Demand("our router", np.full(len(names), 1 / len(names)), names, np.concatenate(worths))


def _gains(router: Router, marks: list) -> Floats:
    return router.choose(marks).gains


def arrivals(demand: Demand, trace: Path | None, *, replicas: int, seconds: float, load: float, seed: int) -> Arrivals:
    """Requests that keep the seats of all replicas busy to the share `load`, for so many seconds.

    With a `trace` gaps and lengths are its own, in blocks of 100 requests in random order, its time scaled to the load;
    else gaps are exponential and lengths those of 200 tokens read and, on average, 200 written.
    """
    rng = np.random.default_rng(seed)
    if trace is None:
        service = PREFILL_S * 200 + DECODE_S * rng.geometric(1 / 200, 4096)
        rate = load * replicas * SEATS / service.mean()
        count = int(rate * seconds)
        gaps, service = rng.exponential(1 / rate, count), rng.choice(service, count)
    else:
        rows = _read(trace)
        times = np.concatenate([[0], np.diff(rows[:, 0])])
        needs = PREFILL_S * rows[:, 1] + DECODE_S * rows[:, 2]
        count = int(load * replicas * SEATS / needs.mean() * seconds)
        starts = rng.integers(0, len(rows) - 100, -(-count // 100))
        order = (starts[:, None] + np.arange(100)).ravel()[:count]
        gaps, service = times[order], needs[order]
        gaps = gaps * (seconds / gaps.sum())
    kind = np.searchsorted(np.cumsum(demand.share), rng.random(count) * (1 - 1e-12))
    return Arrivals(np.cumsum(gaps), service, demand.adapters[kind])


def _read(trace: Path) -> Floats:
    """Time (s), tokens read and tokens written of each request (n, 3), of a CSV file or of Mooncake's JSON lines."""
    if trace.suffix != ".jsonl":
        return np.loadtxt(trace, delimiter=",", skiprows=1)
    requests = [json.loads(line) for line in trace.read_text().splitlines()]
    return np.array([[r["timestamp"] / 1000, r["input_length"], r["output_length"]] for r in requests])
