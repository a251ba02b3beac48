"""Load: many streams at a time over eight adapters, base and `auto`; wrong answers, failures, and the server's memory.

Every worker asks again as soon as its stream has ended. The tiny model's adapters answer so unlike each other that an
answer tells who gave it, whatever header and body say.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx
import numpy as np
import psutil
from rich.table import Table
from traitroute.serving.state import AUTO

from .client import Answer, growth, metrics_of, open_client, pause, stream_answer
from .paired import Growth
from .stand import Stand
from .truth import MAX_TOKENS, Truth, learn_truth

PROMPTS_EACH = 2
SAMPLE_S = 2.0
OPTIONS = ("--num-gpu-blocks-override", "544")
"""A key-value cache of a block a stream and some more: all of it is written to by the first requests. vLLM reserves
gigabytes otherwise,
whose pages become resident one by one for minutes as blocks are first used, and would hide what else grows."""
SERVER = "server that routes"
FAILURES = 10


@dataclass(frozen=True)
class Load:
    """What clients saw and the server took; `statuses` and `verdicts` count requests.

    `failures` are some that got no whole answer: when they began, how long they took, and how they ended. `memory` is
    how the resident memory of each of its processes went; `memory_mb` are the MB of each at `memory_s`.
    """

    concurrency: int
    seconds: float
    adapters: int
    requests: int
    statuses: Mapping[str, int]
    verdicts: Mapping[str, int]
    kinds: Mapping[str, int]
    failures: Sequence[str]
    counted_by_server: float
    median_s: float
    p99_s: float
    memory: Mapping[str, Growth]
    memory_s: Sequence[float]
    memory_mb: Mapping[str, Sequence[float]]

    def table(self) -> Table:
        """Name and figure."""
        title = f"{self.concurrency} streams at a time for {self.seconds:.0f} s, {self.adapters} adapters, base, auto"
        shown = Table("", "", title=title, title_justify="left", show_header=False)
        shown.add_row("requests", f"{self.requests:,} ({self.requests / self.seconds:.0f}/s)")
        shown.add_row("status", listed(self.statuses))
        shown.add_row("answers", listed(self.verdicts))
        shown.add_row("auto, by reason", listed(self.kinds))
        shown.add_row("failures", "\n".join(self.failures) or "none")
        shown.add_row("auto, counted by the server", f"{self.counted_by_server:.0f}")
        shown.add_row("latency s, median and p99", f"{self.median_s:.2f}, {self.p99_s:.2f}")
        for name, grown in self.memory.items():
            shown.add_row(f"memory, second half: {name}", str(grown))
        return shown


def listed(counts: Mapping[str, int]) -> str:
    """Counts in words, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "none"


async def measure_load(
    stand: Stand,
    concurrency: int,
    seconds: float,
    step: Callable[[], None],
    *,
    auto: float = 0.5,
    seed: int,
) -> Load:
    """Keep `concurrency` streams open for `seconds`, the share `auto` of them for `auto`; `step` is called at every
    sample of memory.
    """
    async with open_client(stand.server.base_url, concurrency + 2, stand.key) as client:
        prompts = [text for rows in stand.rows.values() for text in rows[:PROMPTS_EACH]]
        truth = await learn_truth(client, stand, prompts)
        before, start, over = await metrics_of(client), time.monotonic(), asyncio.Event()
        answers: list[Answer] = []
        workers = [
            asyncio.create_task(
                keep_asking(client, truth, over, answers.append, random.Random(f"{seed} {i}"), auto=auto)
            )
            for i in range(concurrency)
        ]
        memory: list[tuple[float, dict[str, float]]] = []
        while (passed := time.monotonic() - start) < seconds:
            memory.append((passed, resident_mb(stand.server.pid)))
            step()
            await pause(min(SAMPLE_S, max(seconds - passed, 0.01)), over)
        over.set()
        await asyncio.gather(*workers)
        spent = time.monotonic() - start
        after = await metrics_of(client)
    counted = growth(before, after, "traitroute_decisions_total")
    return summary(answers, truth, memory, concurrency, spent, counted)


async def keep_asking(
    client: httpx.AsyncClient,
    truth: Truth,
    over: asyncio.Event,
    note: Callable[[Answer], None],
    rng: random.Random,
    *,
    auto: float = 0.5,
) -> None:
    """Ask one random request after the other, the share `auto` of them for `auto`, and note the answers."""
    models, prompts = truth.models, truth.prompts
    while not over.is_set():
        asked = AUTO if rng.random() < auto else rng.choice(models)
        answer = await stream_answer(client, asked, rng.choice(prompts), max_tokens=MAX_TOKENS)
        note(answer)
        if answer.status == 0:
            await pause(0.1, over)


def summary(
    answers: Sequence[Answer],
    truth: Truth,
    memory: Sequence[tuple[float, Mapping[str, float]]],
    concurrency: int,
    seconds: float,
    counted: float,
) -> Load:
    """Count what clients saw; `memory` are seconds, and MB by process."""
    latencies, began = np.array([a.seconds for a in answers]), min(a.began for a in answers)
    passed = np.array([at for at, _ in memory])
    sizes = {name: np.array([mb[name] for _, mb in memory]) for name in memory[0][1]}
    return Load(
        concurrency=concurrency,
        seconds=seconds,
        adapters=len(truth.models) - 1,
        requests=len(answers),
        statuses=dict(Counter(seen_status(a) for a in answers)),
        verdicts=truth.count(answers),
        kinds=dict(Counter(a.kind for a in answers if a.asked == AUTO and a.status == 200)),
        failures=[
            f"after {a.began - began:.1f} s, within {a.seconds:.2f} s: {seen_status(a)} {a.error}"
            for a in answers
            if a.status != 200 or a.cut
        ][:FAILURES],
        counted_by_server=counted,
        median_s=float(np.median(latencies)),
        p99_s=float(np.quantile(latencies, 0.99)),
        memory={name: Growth.of(passed, mb) for name, mb in sizes.items()},
        memory_s=passed.tolist(),
        memory_mb={name: mb.tolist() for name, mb in sizes.items()},
    )


def seen_status(answer: Answer) -> str:
    """The status in words, and how a stream ended that was not whole."""
    if answer.status == 0:
        return f"no answer ({answer.cut})"
    return f"{answer.status} cut ({answer.cut})" if answer.cut else str(answer.status)


def resident_mb(pid: int) -> dict[str, float]:
    """Resident memory of a server's processes, by the names that they have; routing runs in the first."""
    leader = psutil.Process(pid)
    below = {f"{p.name()} {p.pid}": p for p in leader.children(recursive=True)}
    return {n: p.memory_info().rss / 2**20 for n, p in ({SERVER: leader} | below).items()}
