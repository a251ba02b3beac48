"""Faults: what clients see of each while they keep asking, by name and for `auto`, and whether it passes.

A fault is struck, held, and mended; answers in flight meanwhile are counted as "during", those begun later than the
server's next look at the registry as "after". `serving/fault_injection.py` says how each is struck.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from traitroute.serving.state import AUTO
from traitroute.serving.watcher import POLL_S

from .client import Answer, open_client
from .fault_injection import SLOW_COMPONENTS, STRIKES, Site, Strike, slowed
from .load import PROMPTS_EACH, keep_asking, listed, seen_status
from .stand import Stand, topic_profile
from .truth import Truth, learn_truth

RECOVERY_S = 6.0


@dataclass(frozen=True)
class Count:
    """Requests by status, those for `auto` by the kind of their reason, answers by verdict; errors told; the slowest
    in s.
    """

    requests: int
    statuses: Mapping[str, int]
    kinds: Mapping[str, int]
    verdicts: Mapping[str, int]
    errors: Sequence[str]
    slowest_s: float

    @classmethod
    def of(cls, answers: Sequence[Answer], truth: Truth) -> "Count":
        """Count what clients saw."""
        return cls(
            requests=len(answers),
            statuses=dict(Counter(seen_status(a) for a in answers)),
            kinds=dict(Counter(a.kind for a in answers if a.asked == AUTO and a.status == 200)),
            verdicts=truth.count(answers),
            errors=sorted({a.error for a in answers if a.error}),
            slowest_s=max((a.seconds for a in answers), default=0.0),
        )


@dataclass(frozen=True)
class Seen:
    """A fault, what it did to clients, and what `notes` the strike itself made."""

    fault: str
    during: Count
    after: Count | None
    notes: Sequence[str]


def table(found: Sequence[Seen], concurrency: int) -> Table:
    """Two lines a fault."""
    shown = Table(title=f"faults under {concurrency} streams at a time", title_justify="left", show_lines=True)
    for name in ("fault", "when", "status", "auto, by reason", "answers", "slowest s", "noted"):
        shown.add_column(name)
    for seen in found:
        notes = "\n".join([*seen.notes, *seen.during.errors])
        for when, count in (("during", seen.during), ("after", seen.after)):
            if count is not None:
                during = when == "during"
                shown.add_row(
                    seen.fault if during else "",
                    when,
                    listed(count.statuses),
                    listed(count.kinds),
                    listed(count.verdicts),
                    f"{count.slowest_s:.2f}",
                    notes if during else "",
                )
    return shown


async def measure_faults(
    stand: Stand,
    names: Iterable[str],
    concurrency: int,
    hold_s: float,
    *,
    auto: float = 0.5,
    seed: int,
) -> list[Seen]:
    """Strike the faults named, one after the other, under load, of which the share `auto` is for `auto`.

    One that ends the server must be the last.
    """
    async with open_client(stand.server.base_url, 4 * concurrency) as client:
        prompts = [text for rows in stand.rows.values() for text in rows[:PROMPTS_EACH]]
        truth = await learn_truth(client, stand, prompts)
        stand.registry.close()
        whole = topic_profile()
        profiles = whole.to_bytes(), slowed(whole, SLOW_COMPONENTS).to_bytes()
        over, answers = asyncio.Event(), list[Answer]()
        workers = [
            asyncio.create_task(
                keep_asking(
                    client,
                    truth,
                    over,
                    answers.append,
                    random.Random(f"{seed} {i}"),
                    auto=auto,
                )
            )
            for i in range(concurrency)
        ]
        found = []
        try:
            for name in names:
                site = Site(stand, client, truth, concurrency, hold_s, *profiles)
                found.append(await _suffer(name, STRIKES[name], site, answers))
        finally:
            over.set()
            await asyncio.gather(*workers)
    return found


async def _suffer(name: str, strike: Strike, site: Site, answers: list[Answer]) -> Seen:
    answers.clear()
    struck = time.monotonic()
    async with strike(site):
        await asyncio.sleep(site.hold_s)
        held = time.monotonic()
    mended = time.monotonic()
    await asyncio.sleep(0 if site.ended else RECOVERY_S)
    during = [a for a in answers if a.began + a.seconds >= struck and a.began <= held]
    after = [a for a in answers if a.began > mended + 1.5 * POLL_S]
    return Seen(
        fault=name,
        during=Count.of(during, site.truth),
        after=None if site.ended else Count.of(after, site.truth),
        notes=site.notes,
    )
