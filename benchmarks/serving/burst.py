"""Bursts: many requests for `auto` at one instant, and how many of them the router answers within its budget.

Connections are opened first and the requests written to them one after the other without waiting, which takes a few ms
for hundreds: a client library would spread them over a second. Every text is another one, so that nothing can be
remembered.
"""

import asyncio
import http.client
import io
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from latency.texts import request_texts
from rich.table import Table
from traitroute.serving.state import AUTO

from .client import CHAT, PATIENCE_S, Answer, chat, growth, metrics_of, open_client
from .load import listed, seen_status
from .stand import Stand

PAUSE_S = 1.0
LONGEST = 300
"""Characters, which the tiny model's context holds."""


@dataclass(frozen=True)
class Bursts:
    """All bursts of one size together; `routed` is the share the router chose for, `written_ms` what sending a burst
    took (median).
    """

    size: int
    bursts: int
    statuses: Mapping[str, int]
    kinds: Mapping[str, int]
    routed: float
    waited_ms: float
    written_ms: float
    median_s: float


def table(found: Sequence[Bursts]) -> Table:
    """One line a size."""
    shown = Table(title="requests for auto at one instant", title_justify="left")
    for name in (
        "requests",
        "status",
        "by reason",
        "routed",
        "wait for a choice, ms",
        "sent in ms",
        "median s",
    ):
        shown.add_column(name)
    for b in found:
        shown.add_row(
            f"{b.bursts} x {b.size}",
            listed(b.statuses),
            listed(b.kinds),
            f"{100 * b.routed:.1f}%",
            f"{b.waited_ms:.1f}",
            f"{b.written_ms:.1f}",
            f"{b.median_s:.2f}",
        )
    return shown


async def measure_bursts(stand: Stand, sizes: Sequence[int], bursts: int, track: Any, *, seed: int) -> list[Bursts]:
    """Send `bursts` bursts of each size, one size after the other."""
    rng = np.random.default_rng(seed)
    host, port = stand.server.base_url.removeprefix("http://").split(":")
    found = []
    async with open_client(stand.server.base_url, 2) as client:
        for rows in stand.rows.values():
            # Loads the adapters that are there, and is no part of this.
            await client.post(CHAT, json=chat(AUTO, rows[0], max_tokens=1))
        for size in track(sizes, "sizes"):
            before = await metrics_of(client)
            done = []
            for _ in range(bursts):
                done.append(await _burst(host, int(port), _texts(stand, size, rng)))
                await asyncio.sleep(PAUSE_S)
            found.append(_summary(size, done, before, await metrics_of(client)))
    return found


def _texts(stand: Stand, count: int, rng: np.random.Generator) -> list[str]:
    return [text[:LONGEST] for text in request_texts(stand.rows, count, rng)]


async def _burst(host: str, port: int, texts: Sequence[str]) -> tuple[float, list[Answer]]:
    """The ms that writing the requests took, and their answers."""
    lines = [await asyncio.open_connection(host, port) for _ in texts]
    requests = [_request(host, text) for text in texts]
    begin = time.perf_counter()
    for (_, writer), request in zip(lines, requests, strict=True):
        writer.write(request)
    written_ms = 1000 * (time.perf_counter() - begin)
    read = [_read(*line, text, begin) for line, text in zip(lines, texts, strict=True)]
    return written_ms, await asyncio.gather(*read)


def _request(host: str, text: str) -> bytes:
    body = json.dumps(chat(AUTO, text, max_tokens=1)).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str, begin: float) -> Answer:
    async with asyncio.timeout(PATIENCE_S):
        raw = io.BytesIO(await reader.read())
    seconds = time.perf_counter() - begin
    writer.close()
    status = raw.readline().split()
    headers = http.client.parse_headers(raw)
    return Answer(
        asked=AUTO,
        prompt=text,
        began=begin,
        seconds=seconds,
        status=int(status[1]) if status else 0,
        adapter=headers.get("x-traitroute-adapter", ""),
        reason=headers.get("x-traitroute-reason", ""),
    )


def _summary(
    size: int,
    done: Sequence[tuple[float, Sequence[Answer]]],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> Bursts:
    answers = [answer for _, burst in done for answer in burst]
    kinds = Counter(a.kind for a in answers if a.status == 200)
    waits = growth(before, after, "traitroute_routing_seconds_count")
    waited = growth(before, after, "traitroute_routing_seconds_sum")
    return Bursts(
        size=size,
        bursts=len(done),
        statuses=dict(Counter(seen_status(a) for a in answers)),
        kinds=dict(kinds),
        routed=(kinds["adapter"] + kinds["base"]) / len(answers),
        waited_ms=1000 * waited / max(waits, 1),
        written_ms=float(np.median([ms for ms, _ in done])),
        median_s=float(np.median([a.seconds for a in answers])),
    )
