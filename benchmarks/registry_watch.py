"""What does following a registry cost when many replicas do it? Real listeners on a real PostgreSQL.

    python benchmarks/registry_watch.py                           50 replicas, a registry of 1,000 adapters
    python benchmarks/registry_watch.py --adapters 10000 --replicas 10 --json out.json

Every replica is the product's own `RegistryWatcher`, with its own connections, through a relay that counts the bytes.
They share one process here, so the time until the last has seen a change is that of one core which does all their
work. What does not depend on that is extrapolated to 1,000 replicas: bytes, and the database server's processor time.
The adapters are drawn as in `registry_scale.py`. Needs PostgreSQL's programs (`make system`).
"""

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from registry_scale import until, with_row
from reprofiling.postgres_server import PostgresServer, postgres_server
from rich.console import Console
from rich.table import Table
from routing.fleet import Fleet, fill, made_up
from traitroute.adapters import AdapterState, Registry
from traitroute.router import RoutingProfile
from traitroute.serving.state import ServerState
from traitroute.serving.watcher import RegistryWatcher

SOCKET = ".s.PGSQL.5432"
BLOCK = 2**16
KIB = 2**10
IDLE_S = 90
CHANGES = 5
MANY = 1_000
"""Replicas that bytes and the server's time are extrapolated to."""


@dataclass
class Relay:
    """Passes everything on between a socket in `folder` and the server's, and counts the bytes that replicas read."""

    server: PostgresServer
    folder: Path
    read: int = 0
    connections: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        listen = asyncio.start_unix_server(self._connected, self.folder / SOCKET)
        asyncio.run_coroutine_threadsafe(listen, self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        back, forth = await asyncio.open_unix_connection(self.server.folder / SOCKET)
        await asyncio.gather(self._pass(reader, forth), self._pass(back, writer, count=True))
        self.connections -= 1

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool = False) -> None:
        while block := await reader.read(BLOCK):
            self.read += len(block) if count else 0
            writer.write(block)
            await writer.drain()
        writer.close()


@dataclass(frozen=True)
class Cost:
    """What something cost: KiB that a replica read, processor ms of the database server for each, ms until all saw."""

    what: str
    kib: float
    server_ms: float
    all_saw_ms: float


@dataclass(frozen=True)
class Watched:
    """The whole: of `replicas`, each with so many open `connections`, the costs."""

    adapters: int
    replicas: int
    connections: float
    costs: Sequence[Cost]


@dataclass(frozen=True)
class Meter:
    """Takes what a step costs each of the replicas."""

    relay: Relay
    replicas: int

    async def take(self, what: str, step: Coroutine[Any, Any, object]) -> Cost:
        """Run a step and say what it cost."""
        read, busy, start = self.relay.read, self._server_s(), time.perf_counter()
        await step
        passed = time.perf_counter() - start
        kib = (self.relay.read - read) / KIB / self.replicas
        return Cost(what, kib, 1000 * (self._server_s() - busy) / self.replicas, 1000 * passed)

    def _server_s(self) -> float:
        """Processor seconds of the database server's processes; those that ended are in their parent's."""
        assert self.relay.server.process is not None
        parent = psutil.Process(self.relay.server.process.pid)
        own = parent.cpu_times()
        return (
            own.children_user + own.children_system + sum(sum(p.cpu_times()[:2]) for p in [parent, *parent.children()])
        )


@asynccontextmanager
async def watching(states: Sequence[ServerState], place: str) -> AsyncIterator[None]:
    """The replicas, for as long as the block lasts."""
    opened = partial(Registry.open, place, read_only=True, weights=Path(tempfile.gettempdir()))
    watchers = [RegistryWatcher(state, opened, lambda _: None) for state in states]
    async with AsyncExitStack() as stack:
        for watcher in watchers:
            stack.push_async_callback(watcher.stop)
        await asyncio.gather(*(watcher.start() for watcher in watchers))
        yield


async def follow(registry: Registry, fleet: Fleet, size: int, replicas: int, relay: Relay) -> tuple[float, list[Cost]]:
    """Start replicas, leave them alone, and change the registry: connections of each, and costs."""
    drawn = fleet.draw(size)
    registry.put_profile(fleet.routing_profile(drawn).to_bytes(), summary := fleet.summary(drawn))
    newest = registry.latest_profile()
    assert newest is not None
    profile, version = RoutingProfile.from_bytes(newest.data), newest.version
    states, meter = [ServerState() for _ in range(replicas)], Meter(relay, replicas)

    def all_see(change: Callable[[], object], seen: Callable[[ServerState], bool]) -> Coroutine[Any, Any, None]:
        async def step() -> None:
            await asyncio.to_thread(change)
            await until(lambda: all(map(seen, states)))

        return step()

    watch = watching(states, f"postgresql+psycopg://tester@/{registry_name(registry)}?host={relay.folder}")
    costs = [await meter.take("a start", watch.__aenter__())]
    try:
        # They listen from now on, and look once more.
        await asyncio.sleep(2)
        idle = await meter.take("a minute without changes", asyncio.sleep(IDLE_S))
        costs.append(Cost(idle.what, idle.kib * 60 / IDLE_S, idle.server_ms * 60 / IDLE_S, float("nan")))
        connections = relay.connections / replicas
        for i in range(CHANGES):
            adapter = made_up(f"late-{i}", size + i, state=AdapterState.PENDING)
            add = all_see(partial(registry.add_adapter, adapter), lambda s, a=adapter: a.name in s.snapshot.adapters)
            costs.append(await meter.take("an adapter is added", add))
            profile = profile.with_adapter(adapter.name, drawn.scores[i])
            summary = with_row(summary, adapter.name)
            admit = partial(registry.admit, adapter, profile.to_bytes(), summary, parent=version)
            version += 1
            routed = all_see(admit, lambda s, v=version: getattr(s.snapshot.router, "version", 0) == v)
            costs.append(await meter.take("an adapter is admitted to the profile", routed))
    finally:
        await watch.__aexit__(None, None, None)
    return connections, costs


def registry_name(registry: Registry) -> str:
    """The database of a registry."""
    assert registry.location.url is not None
    return str(registry.location.url.database)


def measure(size: int, replicas: int) -> Watched:
    """Set everything up, and measure it."""
    fleet = Fleet()
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(durable=False))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-")))
        relay = stack.enter_context(Relay(server, folder))
        weights = Path(tempfile.gettempdir())
        registry = stack.enter_context(Registry.create(server.new_database(), weights=weights))
        fill(registry, fleet.draw(size).names)
        connections, costs = asyncio.run(follow(registry, fleet, size, replicas, relay))
    names = dict.fromkeys(c.what for c in costs)
    means = [_mean([c for c in costs if c.what == name]) for name in names]
    return Watched(size, replicas, connections, means)


def _mean(costs: Sequence[Cost]) -> Cost:
    fields = [list(asdict(c).values())[1:] for c in costs]
    return Cost(costs[0].what, *(sum(values) / len(values) for values in zip(*fields, strict=True)))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=1_000)
    parser.add_argument("--replicas", type=int, default=50)
    parser.add_argument("--json", type=Path, help="write every figure here")
    given = parser.parse_args()
    found = measure(given.adapters, given.replicas)
    Console(width=120).print(shown(found))
    if given.json:
        given.json.write_text(json.dumps(asdict(found), indent=1))


def shown(found: Watched) -> Table:
    """A row for each of what costs."""
    table = Table(
        title=f"{found.replicas} replicas, {found.adapters:,} adapters; {found.connections:.1f} connections a replica",
        title_justify="left",
    )
    heads = ("KiB a replica", "server, ms a replica", "until all saw, ms", f"{MANY:,} replicas: MiB", "server, s")
    for head in ("", *heads):
        table.add_column(head, justify="right" if head else "left")
    for cost in found.costs:
        each = (cost.kib, cost.server_ms, cost.all_saw_ms, cost.kib * MANY / KIB, cost.server_ms * MANY / 1000)
        table.add_row(cost.what, *("" if value != value else f"{value:,.1f}" for value in each))
    return table


if __name__ == "__main__":
    main()
