"""What a registry of thousands of adapters costs: to open, to follow, to route over, to add to, to fit again.

    python benchmarks/registry_scale.py                             100, 1,000 and 10,000 adapters in a file
    python benchmarks/registry_scale.py --json out.json --sizes 100,1000
    python benchmarks/registry_scale.py --url postgresql+psycopg://me@/empty?host=/tmp    in an empty database

The adapters are drawn from a fitted trait model (`routing/fleet.py`), 50 tasks each. Each size has a process of its
own. "seen" is from the call that adds an adapter to the follower offering it, "routable" from the call of `admit` with
a profile of one more adapter to the follower's router knowing it; "stop" is the longest time that its event loop stood
still: while all is read, while an addition is, and while an admission is.
"""

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table
from routing.fleet import Drawn, Fleet, fill, made_up
from sqlalchemy import String, cast, func, select
from traitroute.adapters import AdapterState, NewRow, ProfileSummary, Registry
from traitroute.adapters.registry import schema
from traitroute.adapters.registry.schema import metadata
from traitroute.profiling.traits.space import TraitSpace
from traitroute.router import RoutingProfile, fit_profile
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState
from traitroute.serving.watcher import RegistryWatcher

TEXTS = 200
REPEATS = 5
PAUSE_S = 0.001
MIB = 2**20


@dataclass(frozen=True)
class Figures:
    """One size; times in milliseconds, memory in MiB, refits in seconds (None: not asked for)."""

    adapters: int
    open_ms: float
    revision_ms: float
    snapshot_ms: float
    snapshot_mib: float
    profile_mib: float
    stored_mib: float
    version_mib: float
    stop_ms: float
    stop_adding_ms: float
    stop_admitting_ms: float
    route_ms: float
    route_p99_ms: float
    add_ms: float
    seen_ms: float
    admit_ms: float
    routable_ms: float
    traits_s: float | None
    demand_s: float | None


def timed(what: Callable[[], object]) -> float:
    """Milliseconds that a call took."""
    start = time.perf_counter()
    what()
    return 1000 * (time.perf_counter() - start)


def median(what: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median of some calls' milliseconds."""
    return statistics.median(timed(what) for _ in range(repeats))


def measure(size: int, place: str, refit: int) -> Figures:
    """Fill a registry and measure it."""
    fleet = Fleet()
    drawn = fleet.draw(size)
    data, summary = fleet.routing_profile(drawn).to_bytes(), fleet.summary(drawn)
    with Registry.create(place, weights=Path(tempfile.gettempdir())) as registry:
        fill(registry, drawn.names)
        registry.put_profile(data, summary)
        whole = stored(registry)
        opened = median(lambda: Registry.open(place, read_only=True).close())
        revision = median(registry.revision, 50)
        # First, for memory that was freed before is taken again unseen.
        memory = grown(lambda: RegistrySnapshot.read(registry))
        snapshot = median(lambda: RegistrySnapshot.read(registry), 3)
        followed = asyncio.run(follow(registry, fleet, drawn, summary))
        return Figures(
            adapters=size,
            open_ms=opened,
            revision_ms=revision,
            snapshot_ms=snapshot,
            snapshot_mib=memory,
            profile_mib=len(data) / MIB,
            stored_mib=whole,
            **route(fleet, drawn),
            **followed,
            **fit_again(fleet, drawn, refit),
        )


def grown(what: Callable[[], object]) -> float:
    """MiB that this process holds more of while it keeps what a call returned."""
    gc.collect()
    before = psutil.Process().memory_info().rss
    kept = what()
    gc.collect()
    after = psutil.Process().memory_info().rss
    del kept
    return (after - before) / MIB


def route(fleet: Fleet, drawn: Drawn) -> dict[str, Any]:
    """Time of a decision, over measured requests."""
    from traitroute.router import Router

    router = Router(fleet.routing_profile(drawn))
    marks = fleet.table.marks[fleet.rows[:: max(1, len(fleet.rows) // TEXTS)]]
    times = [timed(lambda m=m: router.route(m)) for m in marks]
    return {"route_ms": statistics.median(times), "route_p99_ms": float(np.quantile(times, 0.99))}


async def follow(registry: Registry, fleet: Fleet, drawn: Drawn, summary: ProfileSummary) -> dict[str, Any]:
    """Time for a server to see an adapter added, and to route to one admitted; and how long its event loop stood
    still.
    """
    state, offers = ServerState(), []
    opened = lambda: Registry.open(registry.location, read_only=True, weights=Path("weights"))  # noqa: E731
    follower = RegistryWatcher(state, opened, lambda snapshot: offers.append(len(snapshot.adapters)))
    await follower.start()
    await asyncio.sleep(0.5)
    stop = await longest_stop(asyncio.to_thread(RegistrySnapshot.read, registry))
    adding, admitting = Follow(), Follow()
    newest = registry.latest_profile()
    assert newest is not None
    profile, version = RoutingProfile.from_bytes(newest.data), newest.version
    whole = stored(registry)
    for i in range(REPEATS):
        adapter = made_up(f"late-{i}", len(drawn.names) + i, state=AdapterState.PENDING)
        await adding.see(lambda a=adapter: registry.add_adapter(a), lambda a=adapter: a.name in state.snapshot.adapters)
        profile = profile.with_adapter(adapter.name, drawn.scores[i])
        summary = with_row(summary, adapter.name)
        admit = partial(registry.admit, adapter, profile.to_bytes(), summary, parent=version)
        version += 1
        await admitting.see(admit, lambda v=version: getattr(state.snapshot.router, "version", 0) == v)
    await follower.stop()
    versions = stored(registry) - whole
    return {
        "version_mib": versions / REPEATS,
        "stop_ms": stop,
        "stop_adding_ms": max(adding.stops),
        "stop_admitting_ms": max(admitting.stops),
        "add_ms": statistics.median(adding.calls),
        "seen_ms": statistics.median(adding.sights),
        "admit_ms": statistics.median(admitting.calls),
        "routable_ms": statistics.median(admitting.sights),
    }


@dataclass
class Follow:
    """Milliseconds of changes: of the call, until the server saw it, and that its event loop stood still meanwhile."""

    calls: list[float] = field(default_factory=list)
    sights: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)

    async def see(self, change: Callable[[], object], seen: Callable[[], bool]) -> None:
        """Make a change in another thread, and wait until it is seen."""
        start = time.perf_counter()
        self.calls.append(await asyncio.to_thread(timed, change))
        stop = await longest_stop(until(seen))
        self.stops.append(stop)
        self.sights.append(1000 * (time.perf_counter() - start))


def with_row(summary: ProfileSummary, name: str) -> ProfileSummary:
    """The summary with the last adapter's row once more, under another name, as a row that joins is added."""
    estimated = summary.estimated
    row = NewRow(
        adapter=name,
        weights_digest=list(summary.weights.values())[-1],
        tasks=summary.tasks,
        gains=summary.gains[-1],
        errors=estimated.errors[-1],
        examples=estimated.examples[-1],
        cells=(),
    )
    return summary.with_row(row)


def stored(registry: Registry) -> float:
    """MiB that all versions of the profile take."""
    lengths = (schema.chunks.c.data, cast(schema.profiles.c.summary, String))
    with registry._transaction() as connection:
        sums = [connection.execute(select(func.sum(func.length(c)))).scalar_one() for c in lengths]
    return sum(sums) / MIB


async def until(true: Callable[[], bool]) -> None:
    """Wait for a server to see something."""
    while not true():
        await asyncio.sleep(0.001)


async def longest_stop(work: Coroutine[Any, Any, object]) -> float:
    """Milliseconds that the event loop stood still at most while `work` went on."""
    task = asyncio.ensure_future(work)
    longest = 0.0
    while not task.done():
        start = time.perf_counter()
        # Not zero, which would take half of the interpreter's time from the thread that reads.
        await asyncio.sleep(PAUSE_S)
        longest = max(longest, time.perf_counter() - start - PAUSE_S)
    await task
    return 1000 * longest


def fit_again(fleet: Fleet, drawn: Drawn, refit: int) -> dict[str, Any]:
    """Seconds to fit traits with their null of 1000 permutations, and the demand model; a negative `refit` fits
    nothing.
    """
    if refit < 0:
        return {"traits_s": None, "demand_s": None}
    traits = TraitSpace(n_permutations=1000)
    traits_s = timed(lambda: traits.fit(drawn.gains)) / 1000
    if len(drawn.names) > refit:
        return {"traits_s": traits_s, "demand_s": None}
    requests = fleet.requests(fleet.draw_examples(drawn))
    scores = traits.transform(drawn.gains)[:, :10]
    fit = lambda: fit_profile(drawn.names, requests, scores, n_traits=traits.n_traits_)  # noqa: E731
    return {"traits_s": traits_s, "demand_s": timed(fit) / 1000}


def shown(found: list[Figures]) -> Table:
    """A row a figure, a column a size."""
    table = Table(title="registry, ms unless said otherwise")
    table.add_column("")
    for figures in found:
        table.add_column(f"{figures.adapters:,}", justify="right")
    for name in asdict(found[0]):
        if name != "adapters":
            values = [asdict(figures)[name] for figures in found]
            table.add_row(name, *("-" if v is None else f"{v:,.2f}" for v in values))
    return table


def empty(url: str) -> None:
    """Remove the tables of the size before."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    metadata.drop_all(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS traitroute_migrations"))
    engine.dispose()


def main() -> None:
    """Measure every size in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--url", help="an empty PostgreSQL database, whose tables are dropped after")
    parser.add_argument(
        "--refit",
        type=int,
        default=1000,
        help="the most adapters to fit the demand model for; -1: no traits either",
    )
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    found = []
    for size in map(int, arguments.sizes.split(",")):
        with (
            tempfile.TemporaryDirectory() as scratch,
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        ):
            place = arguments.url or str(Path(scratch) / "registry.db")
            found.append(pool.submit(measure, size, place, arguments.refit).result())
        if arguments.url:
            empty(arguments.url)
    Console(width=120).print(shown(found))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(f) for f in found], indent=2))


if __name__ == "__main__":
    main()
