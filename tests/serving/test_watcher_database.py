"""Servers follow a registry on a PostgreSQL server: told at once, and not at a loss while it is away."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Adapter, Location, Registry
from traitroute.adapters.registry import postgresql
from traitroute.serving import watcher as following
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState
from traitroute.serving.watcher import RegistryWatcher

client = pytest.importorskip("prometheus_client")

TOLD_S = 2.0


def adapter(name: str, digest: str = "1") -> Adapter:
    fields = {"name": name, "base_model": "tiny", "base_digest": "0" * 64, "rank": 4}
    return Adapter.model_validate(fields | {"weights_digest": digest * 64, "target_modules": ("q_proj",)})


@pytest.fixture
def url(postgres: Any) -> str:
    url = postgres.new_database()
    Registry.create(url).close()
    return url


async def until(true: Callable[[], bool], *, within_s: float = TOLD_S) -> float:
    """Wait until something is true, and return how long that took."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() < start + within_s, "it did not happen in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - start


def backends_of(url: str) -> list[int]:
    """The server's processes that serve connections to a database."""
    psycopg = pytest.importorskip("psycopg")
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return [pid for (pid,) in connection.execute(query).fetchall()]


def gauge() -> float | None:
    """Whether the registry is within reach, as `/metrics` has it."""
    return client.REGISTRY.get_sample_value("traitroute_registry_reachable")


def follow(url: str, weights: Path, **offer: Any) -> tuple[ServerState, RegistryWatcher]:
    state = ServerState()
    opened = lambda: Registry.open(url, read_only=True, weights=weights)  # noqa: E731
    return state, RegistryWatcher(state, opened, offer.get("to", lambda *_: None))


def test_every_replica_is_told_of_an_addition(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A slow look could otherwise hide that nobody was told.
    monkeypatch.setattr(postgresql, "LOOK_S", 60.0)

    async def run() -> None:
        replicas = [follow(url, tmp_path) for _ in range(3)]
        for _, follower in replicas:
            await follower.start()
        await asyncio.sleep(0.2)
        with Registry.open(url) as registry:
            await asyncio.to_thread(registry.add_adapter, adapter("code"))
            await until(lambda: all(r.snapshot.adapters.keys() == {"code"} for r, _ in replicas))
            await asyncio.to_thread(registry.remove_adapter, "code")
            await until(lambda: all(r.snapshot.adapters.keys() == set() for r, _ in replicas))
        for _, follower in replicas:
            await follower.stop()

    asyncio.run(run())


def test_a_quiet_registry_is_not_asked_again_and_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    revision = Registry.revision

    def counted(registry: Registry) -> int:
        asked.append(str(registry.location))
        return revision(registry)

    monkeypatch.setattr(Registry, "revision", counted)

    async def run() -> None:
        _, follower = follow(url, tmp_path)
        await follower.start()
        await asyncio.sleep(0.5)
        asked.clear()
        await asyncio.sleep(2.0)
        await follower.stop()

    asyncio.run(run())
    # Servers of other tests may be asking for registries of their own.
    assert str(Location.parse(url)) not in asked


def test_a_database_that_is_away_takes_nothing_away_and_is_followed_again(
    postgres: Any, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        with Registry.open(url) as registry:
            await asyncio.to_thread(registry.add_adapter, adapter("code"))
        state, follower = follow(url, tmp_path)
        await follower.start()
        await asyncio.sleep(0.2)
        await asyncio.to_thread(postgres.kill)
        await until(lambda: not follower.health.reachable)
        await asyncio.sleep(1.5)
        assert state.snapshot.adapters.keys() == {"code"}
        report = follower.health.report()
        assert report["age_s"] is not None and report["age_s"] >= 1
        # Servers that other tests keep say in between that theirs is there: the gauge is one for the process.
        await until(lambda: gauge() == 0)
        await asyncio.to_thread(postgres.start)
        await until(lambda: follower.health.reachable)
        with Registry.open(url) as registry:
            await asyncio.to_thread(registry.add_adapter, adapter("cook"))
        await until(lambda: state.snapshot.adapters.keys() == {"code", "cook"})
        await until(lambda: gauge() == 1)
        await follower.stop()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    said = [record.getMessage() for record in caplog.records if "traitroute" in record.getMessage()]
    # A server that starts gives other reasons than one that is gone; none is told twice.
    away = [each for each in said if "cannot be read" in each]
    assert 1 <= len(away) == len(set(away))
    assert sum("is back" in each for each in said) == 1


def test_a_database_that_hangs_counts_as_lost_until_it_answers(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "LOOK_S", 0.2)
    monkeypatch.setattr(following, "ANSWER_S", 0.5)

    def signal_backends(number: int) -> None:
        for backend in backends:
            os.kill(backend, number)

    async def run() -> None:
        state, follower = follow(url, tmp_path)
        await follower.start()
        await asyncio.sleep(0.3)
        backends.extend(backends_of(url))
        # The system goes on acknowledging what is sent to a process that stands still.
        signal_backends(signal.SIGSTOP)
        try:
            await until(lambda: not follower.health.reachable, within_s=5)
        finally:
            signal_backends(signal.SIGCONT)
        await until(lambda: follower.health.reachable)
        with Registry.open(url) as registry:
            await asyncio.to_thread(registry.add_adapter, adapter("code"))
        await until(lambda: state.snapshot.adapters.keys() == {"code"})
        await follower.stop()

    backends: list[int] = []
    asyncio.run(run())


def test_a_server_may_start_before_its_database(postgres: Any, url: str, tmp_path: Path) -> None:
    async def run() -> None:
        postgres.kill()
        state, follower = follow(url, tmp_path)
        await follower.start()
        assert state.snapshot.no_router == "no-profile: the registry cannot be read"
        await asyncio.to_thread(postgres.start)
        with Registry.open(url) as registry:
            await asyncio.to_thread(registry.add_adapter, adapter("code"))
        await until(lambda: state.snapshot.adapters.keys() == {"code"})
        await follower.stop()

    asyncio.run(run())


def test_a_server_that_stops_while_it_reads_leaves_no_connection_open(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = threading.Event()
    replacements = Registry.replacements

    def slow(registry: Registry) -> list[Adapter]:
        reading.set()
        time.sleep(0.5)
        return replacements(registry)

    async def run() -> None:
        _, follower = follow(url, tmp_path)
        await follower.start()
        monkeypatch.setattr(Registry, "replacements", slow)
        with Registry.open(url) as registry:
            await asyncio.to_thread(registry.add_adapter, adapter("code"))
            await until(reading.is_set)
        await follower.stop()

    asyncio.run(run())
    assert backends_of(url) == []


def test_an_admitted_replacement_is_offered_under_its_digest(url: str, tmp_path: Path) -> None:
    offers: list[dict[str, str]] = []

    def offer(snapshot: RegistrySnapshot) -> None:
        offers.append({name: a.weights_digest[0] for name, a in snapshot.adapters.items()})

    async def run() -> None:
        _, follower = follow(url, tmp_path, to=offer)
        await follower.start()
        with Registry.open(url) as registry:
            await asyncio.to_thread(registry.add_adapter, adapter("code"))
            waiting = await asyncio.to_thread(registry.replace_adapter, adapter("code", "2"))
            await until(lambda: {"code": "1", "code@2": "2"} in offers)
            registry.admit(waiting, b"", made_up_summary(), parent=None)
        await until(lambda: offers[-1] == {"code": "2"})
        await follower.stop()

    asyncio.run(run())
