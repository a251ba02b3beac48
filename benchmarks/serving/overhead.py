"""Overhead: asking for `auto` against naming the adapter that `auto` chose, in one server, in random order.

Every text is asked three times, in an order drawn for it: with `auto`, by the adapter's name, and by its name again,
which is the control (A/A): what it differs from the first by is noise. Answers are one token long, and the prefix cache
is off, so that each of the three reads the whole prompt. An engine on few cores is noisy, so two figures without its
noise stand beside: what the server's own histogram says that choices took, and the middleware alone in this process
(`serving/middleware_alone.py`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from latency.texts import request_texts
from numpy.typing import NDArray
from rich.table import Table
from traitroute.router import Router
from traitroute.serving.state import AUTO

from .client import CHAT, chat, growth, read_metrics
from .middleware_alone import Alone, measure_middleware
from .paired import Difference
from .stand import Stand

OPTIONS = ("--no-enable-prefix-caching",)
ARMS = ("named", "named again", AUTO)
WARM_UP, ALONE = 3, 100
LONGEST = 800
"""Characters: noise grows with the latency, and what routing takes hardly does."""


@dataclass(frozen=True)
class Overhead:
    """Latencies in ms at one token, differences to `named`, the ms that the server says it routed, the middleware
    alone.
    """

    texts: int
    adapters: int
    median_ms: Mapping[str, float]
    auto: Difference
    control: Difference
    routing_ms: float
    alone: Alone

    def table(self) -> Table:
        """One line an arm."""
        shown = Table(title="latency at max_tokens=1, ms", title_justify="left")
        for name in ("asked for", "median", "more, median", "in %", "more, mean"):
            shown.add_column(name, justify="left" if name == "asked for" else "right")
        differences = {"named again": self.control, AUTO: self.auto}
        for arm in ARMS:
            row = [arm, f"{self.median_ms[arm]:.1f}"]
            if arm in differences:
                d = differences[arm]
                row += [f"{each:+.2f}" for each in (d.median_ms, d.percent, d.mean_ms)]
            shown.add_row(*row)
        share = 100 * self.routing_ms / self.median_ms["named"]
        shown.caption = (
            f"{self.texts} texts, {self.adapters} models chosen. The server's own histogram: "
            f"{self.routing_ms:.2f} ms a "
            f"choice, {share:.2f}% of the median. The middleware alone: {self.alone.auto_ms:.2f} ms for auto, "
            f"{self.alone.named_ms:.3f} by name, {self.alone.plain_ms:.3f} without it"
        )
        return shown


def measure_overhead(stand: Stand, count: int, track: Any, *, seed: int) -> tuple[Overhead, NDArray[np.float64]]:
    """Measure, and return the times too: ms, (texts, `ARMS`)."""
    rng = np.random.default_rng(seed)
    drawn = request_texts(stand.rows, 2 * (count + WARM_UP), rng)
    texts = [t for t in drawn if len(t) <= LONGEST][: count + WARM_UP]
    with httpx.Client(base_url=stand.server.base_url, timeout=120) as client:
        # Adapters are loaded by the first request for each, which is no part of this.
        chosen = [_chosen(client, text) for text in track(texts, "choices, and loading")]
        before = read_metrics(client.get("/metrics").text)
        times = np.array(
            [
                _times(client, text, name, rng)
                for text, name in track(list(zip(texts, chosen, strict=True)), "timed texts")
            ]
        )[WARM_UP:]
        after = read_metrics(client.get("/metrics").text)
    name = "traitroute_routing_seconds"
    routed = growth(before, after, f"{name}_count")
    spent = growth(before, after, f"{name}_sum")
    alone = measure_middleware(Router.from_registry(stand.registry), texts[:ALONE])
    return summary(times, len(set(chosen)), 1000 * spent / max(routed, 1), alone, rng), times


def summary(
    times: NDArray[np.float64],
    adapters: int,
    routing_ms: float,
    alone: Alone,
    rng: np.random.Generator,
) -> Overhead:
    """What `times`, ms of (texts, `ARMS`), say."""
    named, again, auto = times.T
    return Overhead(
        texts=len(times),
        adapters=adapters,
        median_ms=dict(zip(ARMS, np.median(times, axis=0).tolist(), strict=True)),
        auto=Difference.of(auto, named, rng),
        control=Difference.of(again, named, rng),
        routing_ms=routing_ms,
        alone=alone,
    )


def _chosen(client: httpx.Client, text: str) -> str:
    response = client.post(CHAT, json=chat(AUTO, text, max_tokens=1))
    return response.raise_for_status().headers["x-traitroute-adapter"]


def _times(client: httpx.Client, text: str, name: str, rng: np.random.Generator) -> Sequence[float]:
    """Ms of the three ways to ask, in the order of `ARMS`."""
    spent = [0.0] * len(ARMS)
    for arm in rng.permutation(len(ARMS)):
        body = chat(AUTO if ARMS[arm] == AUTO else name, text, max_tokens=1)
        begin = time.perf_counter_ns()
        client.post(CHAT, json=body).raise_for_status()
        spent[arm] = (time.perf_counter_ns() - begin) / 1e6
    return spent
