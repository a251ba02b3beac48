"""How long `select` and `plan` take, at 10, 1,000 and 10,000 adapters: one core, one process, without HTTP and with.

    python benchmarks/skills.py --data DATA           real requests, DATA holds <task>/test.jsonl
    python benchmarks/skills.py                       generated requests
    python benchmarks/skills.py --json OUT            and write the figures

Texts are those of `latency.py`, joined and cut to lengths from 50 to 4,000 characters. A profile is fitted for ten
adapters on made-up gains; further adapters are drawn with the covariance of their traits, and so is what each is
measured to do on `TASKS` tasks, since a time does not depend on it. `select` ranks five skills with their side effects,
demanded traits and a signed decision; `plan` does that for 50 sub-tasks and assigns them. Over HTTP means the route as
a server runs it, in the same process: reading and checking the body, computing off the event loop, writing the answer;
no network.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
from latency.one_core import keep_to_one_core, processor
from latency.routers import enlarged, fitted_profile
from latency.texts import FIT_ROWS, WARM_UP, read_rows, request_texts, split_rows
from made_up_summary import made_up_summary, made_up_traits
from rich.console import Console
from rich.table import Table
from starlette.applications import Starlette
from traitroute.adapters import Adapter, AdapterState, Location, PairedOutcomes
from traitroute.router import Router, RoutingProfile
from traitroute.serving.api_routes import api_routes
from traitroute.serving.measured import Measured
from traitroute.serving.profile_snapshot import ProfileSnapshot
from traitroute.serving.skills import PlanRequest, SelectRequest, Skills
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

SIZES = (10, 1_000, 10_000)
EXAMPLES, TASKS, STEPS = 100, 50, 50
console = Console(width=150)


@dataclass(frozen=True)
class Times:
    """Milliseconds of one kind of question over all that were asked: of a clock, and of the processor."""

    asked: str
    adapters: int
    count: int
    median_ms: float
    p99_ms: float
    cpu_median_ms: float
    cpu_p99_ms: float


class Clocks:
    """Milliseconds on a clock and of the processor, (n, 2); where other processes run, the second is what counts."""

    def __init__(self) -> None:
        self.spent: list[tuple[float, float]] = []

    def __enter__(self) -> None:
        self._begin = time.perf_counter_ns(), time.process_time_ns()

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._begin
        self.spent.append(((time.perf_counter_ns() - wall) / 1e6, (time.process_time_ns() - cpu) / 1e6))

    def times(self, asked: str, adapters: int, warm: int) -> Times:
        """Quantiles, the first `warm` left out."""
        kept = np.array(self.spent[warm:])
        middle, high = np.median(kept, axis=0), np.quantile(kept, 0.99, axis=0)
        return Times(asked, adapters, len(kept), *map(float, (middle[0], high[0], middle[1], high[1])))


def snapshot(profile: RoutingProfile, rng: np.random.Generator) -> ProfileSnapshot:
    """A snapshot of made-up measurements around a real router."""
    n, components = len(profile.adapters), profile.trait_scores.shape[1]
    tasks = (*profile.tasks, *(f"task-{i}" for i in range(len(profile.tasks), TASKS)))
    base = rng.integers(20, 60, TASKS)
    won = rng.binomial(EXAMPLES - base, 0.25, (n, TASKS))
    lost = rng.binomial(base, 0.25, (n, TASKS))
    examples = np.full((n, TASKS), EXAMPLES)
    scores = (base + won - lost) / EXAMPLES
    summary = made_up_summary(
        profile.adapters,
        tasks,
        base=base / EXAMPLES,
        scores=scores,
        trait_scores=profile.trait_scores,
        paired=PairedOutcomes(differing=won + lost, squares=(won + lost).astype(float), examples=examples),
        traits=made_up_traits(np.eye(components, TASKS), n_traits=profile.n_traits),
    )
    measured = Measured.read(summary)
    adapters = {name: _adapter(name, i) for i, name in enumerate(profile.adapters)}
    location = Location(path=Path("made-up.db"))
    traits, scores = summary.traits, summary.trait_scores
    return ProfileSnapshot(adapters, Router(profile), "made-up", traits, scores, {}, measured, b"key", location)


def _adapter(name: str, i: int) -> Adapter:
    return Adapter(
        name=name,
        base_model="made-up",
        base_digest="0" * 64,
        weights_digest=f"{i:064x}",
        rank=8,
        target_modules=("q_proj",),
        state=AdapterState.READY,
    )


def timed(asked: str, adapters: int, ask: Callable[[int], object], count: int, warm: int) -> Times:
    """Time `ask` over 0 to `count`, the first `warm` left out."""
    clocks = Clocks()
    for i in range(count):
        with clocks:
            ask(i)
    return clocks.times(asked, adapters, warm)


def over_http(found: ProfileSnapshot, texts: Sequence[str], batches: Sequence[Sequence[str]]) -> list[Times]:
    """The same through the routes."""
    state = ServerState(snapshot=RegistrySnapshot(skills=found))
    app = Starlette(routes=api_routes(state))
    plans = [{"steps": [{"task": text} for text in batch], "max_loss": 1.0} for batch in batches]

    async def ask() -> list[Times]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return [
                await _asked(client, "select", [{"task": t} for t in texts], WARM_UP, found),
                await _asked(client, f"plan of {STEPS}", plans, 2, found),
            ]

    return asyncio.run(ask())


async def _asked(
    client: httpx.AsyncClient, asked: str, bodies: Sequence[object], warm: int, found: ProfileSnapshot
) -> Times:
    path = f"/v1/skills/{asked.split()[0]}"
    clocks = Clocks()
    for body in bodies:
        with clocks:
            response = await client.post(path, json=body)
        response.raise_for_status()
    return clocks.times(f"{asked}, over HTTP", len(found.adapters), warm)


def measure(found: ProfileSnapshot, texts: Sequence[str], batches: Sequence[Sequence[str]]) -> list[Times]:
    """All questions to one snapshot."""
    skills, n = Skills(found), len(found.adapters)
    selects = [SelectRequest(task=text) for text in texts]
    plans = [PlanRequest(steps=[SelectRequest(task=t) for t in batch], max_loss=1.0) for batch in batches]
    return [
        timed("select", n, lambda i: skills.select(selects[i]), len(selects), WARM_UP),
        timed(f"plan of {STEPS}", n, lambda i: skills.plan(plans[i]), len(plans), 2),
        *over_http(found, texts, batches),
    ]


def main() -> None:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--texts", type=int, default=1_000)
    parser.add_argument("--plans", type=int, default=40)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of adapters")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_to_one_core()
    rng = np.random.default_rng(0)
    fit_rows, rows = split_rows(read_rows(arguments.data, rng), FIT_ROWS)
    texts = request_texts(rows, arguments.texts + WARM_UP, rng)
    batches = [request_texts(rows, STEPS, rng) for _ in range(arguments.plans + 2)]
    fitted = fitted_profile(fit_rows, rng)
    found: list[Times] = []
    for size in arguments.sizes:
        found += measure(snapshot(enlarged(fitted, size, rng), rng), texts, batches)
    table = Table(
        title=f"milliseconds, one core of {processor()}, load average {os.getloadavg()[0]:.1f}",
        title_justify="left",
    )
    for column in ("asked", "adapters", "times", "median", "p99", "CPU median", "CPU p99"):
        table.add_column(column, justify="left" if column == "asked" else "right")
    for t in found:
        figures = (t.median_ms, t.p99_ms, t.cpu_median_ms, t.cpu_p99_ms)
        table.add_row(t.asked, f"{t.adapters:,}", f"{t.count:,}", *(f"{ms:.2f}" for ms in figures))
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(t) for t in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
