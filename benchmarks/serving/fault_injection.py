"""How the faults of `serving/faults.py` are struck and mended, from outside the server and without its help.

The tests run as root too, whom permissions do not stop: files are cut short or moved away instead. SQLite's lock is
taken on the bytes of its shared memory (https://sqlite.org/walformat.html, 2.3), since in WAL mode no statement locks
readers out.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np
import psutil
from made_up_summary import made_up_summary
from traitroute.adapters import Registry
from traitroute.router import RoutingProfile
from traitroute.serving.state import AUTO
from traitroute.serving.watcher import POLL_S

from .client import CHAT, chat, leave_early, metrics_of
from .stand import Stand, adapter_record, save_adapter
from .truth import Truth

WAL_LOCKS, WAL_LOCK_BYTES = 120, 8
SLOW_COMPONENTS = 100_000
LEAVING, LONG_ANSWER = 40, 150
END_LIMIT_S = 30.0


@dataclass
class Site:
    """Where a fault is struck, and the notes that are made of it; `ended` says that the server is gone.

    `profile` is the one served, `slow_profile` decides alike but beyond its time, both as bytes.
    """

    stand: Stand
    client: httpx.AsyncClient
    truth: Truth
    concurrency: int
    hold_s: float
    profile: bytes
    slow_profile: bytes
    notes: list[str] = field(default_factory=list)
    ended: bool = False

    @property
    def file(self) -> Path:
        """The registry's file."""
        return self.stand.registry.path

    @property
    def victim(self) -> str:
        """The adapter whose weights suffer."""
        return next(iter(self.stand.rows))


Strike = Callable[[Site], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def registry_deleted(site: Site) -> AsyncIterator[None]:
    """The file and what SQLite keeps beside it are deleted, later restored from a copy, and written to."""
    with sqlite3.connect(site.file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    backup = shutil.copy2(site.file, site.file.with_suffix(".backup"))
    for file in site.file.parent.glob(f"{site.file.name}*"):
        file.unlink()
    yield
    shutil.copy2(backup, site.file)
    with Registry.open(site.file) as registry:
        registry.set_tags(site.victim, ["restored"])
    await asyncio.sleep(1.5 * POLL_S)
    followed = await _routes_by_tag(site, "restored")
    site.notes.append(f"the restored file was {'followed' if followed else 'NOT followed'}")


@asynccontextmanager
async def profile_corrupted(site: Site) -> AsyncIterator[None]:
    """A newer profile is half of one."""
    await _put_profile(site, site.profile[: len(site.profile) // 2])
    yield
    await _put_profile(site, site.profile)


@asynccontextmanager
async def router_slow(site: Site) -> AsyncIterator[None]:
    """A newer profile has a hundred thousand components."""
    await _put_profile(site, site.slow_profile)
    yield
    await _put_profile(site, site.profile)


def slowed(profile: RoutingProfile, components: int) -> RoutingProfile:
    """The profile with components that no adapter supplies and no request demands."""
    wide, scores = (np.pad(values, ((0, 0), (0, components))) for values in (profile.demands, profile.trait_scores))
    return replace(profile, demands=wide, trait_scores=scores)


@asynccontextmanager
async def weights_truncated(site: Site) -> AsyncIterator[None]:
    """An adapter gets new weights, whose file in the store is cut short."""
    folder = site.stand.folder / "replacement"
    if not folder.exists():
        await asyncio.to_thread(save_adapter, site.stand.base_path, folder, seed=1000)
    with Registry.open(site.file) as registry:
        old = registry.adapter(site.victim)
        new = adapter_record(registry, folder, site.victim, site.stand.base_path)
        stored = registry.weights.path(new.weights_digest)
        weights = next(stored.glob("*.safetensors"))
        os.truncate(weights, weights.stat().st_size // 2)
        registry.add_adapter(new, replace=True)
        yield
        registry.add_adapter(old, replace=True)
        shutil.rmtree(stored)


@asynccontextmanager
async def weights_moved(site: Site) -> AsyncIterator[None]:
    """The folder of an adapter that is loaded is moved away."""
    with Registry.open(site.file) as registry:
        folder = registry.weights.path(registry.adapter(site.victim).weights_digest)
    aside = folder.with_name("aside")
    folder.rename(aside)
    yield
    aside.rename(folder)


@asynccontextmanager
async def registry_locked(site: Site) -> AsyncIterator[None]:
    """Every lock of the database is held by another process's hand."""
    with site.file.with_name(f"{site.file.name}-shm").open("rb+") as memory:
        while True:
            with suppress(BlockingIOError):
                fcntl.lockf(memory, fcntl.LOCK_EX | fcntl.LOCK_NB, WAL_LOCK_BYTES, WAL_LOCKS)
                break
            await asyncio.sleep(0.01)
        yield
        fcntl.lockf(memory, fcntl.LOCK_UN, WAL_LOCK_BYTES, WAL_LOCKS)


@asynccontextmanager
async def clients_leave(site: Site) -> AsyncIterator[None]:
    """Clients hang up in the middle of long streams."""
    prompts = site.truth.prompts
    leaving = [leave_early(site.client, AUTO, prompts[i % len(prompts)], LONG_ANSWER) for i in range(LEAVING)]
    await asyncio.gather(*leaving)
    await asyncio.sleep(1)
    now = await metrics_of(site.client)
    open_ = now["vllm:num_requests_running"] + now["vllm:num_requests_waiting"]
    site.notes.append(
        f"{LEAVING} streams left; a second later {open_:.0f} requests in the engine, of {site.concurrency} clients"
    )
    yield


@asynccontextmanager
async def terminated(site: Site) -> AsyncIterator[None]:
    """SIGTERM, with requests in flight; what is left after a while is killed, as an orchestrator would."""
    leader, start = psutil.Process(site.stand.server.pid), time.monotonic()
    family = [leader, *leader.children(recursive=True)]
    leader.send_signal(signal.SIGTERM)
    site.ended, site.hold_s = True, 0
    while _alive(family) and time.monotonic() - start < END_LIMIT_S:
        await asyncio.sleep(0.05)
    left = _alive(family)
    killed = f"; {len(left)} processes were left, and killed" if left else ""
    site.notes.append(f"{time.monotonic() - start:.1f} s to the end{killed}")
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    yield
    # The streams that were cut by it are answers too.
    await asyncio.sleep(1)


STRIKES: dict[str, Strike] = {
    "registry deleted": registry_deleted,
    "profile corrupted": profile_corrupted,
    "new weights cut short": weights_truncated,
    "loaded weights moved away": weights_moved,
    "registry locked": registry_locked,
    "router slow": router_slow,
    "clients leave": clients_leave,
    "SIGTERM": terminated,
}
PLAIN = "SIGTERM"
"""The fault that a server without the plugin can suffer too."""


async def _put_profile(site: Site, data: bytes) -> None:
    with Registry.open(site.file) as registry:
        await asyncio.to_thread(registry.put_profile, data, made_up_summary())


async def _routes_by_tag(site: Site, tag: str) -> bool:
    """Whether the server knows the victim by a tag it was just given."""
    body = chat(AUTO, site.stand.rows[site.victim][0], max_tokens=1)
    response = await site.client.post(CHAT, json=body, headers={"x-traitroute-tags": tag})
    return response.headers.get("x-traitroute-adapter") == site.victim


def _alive(family: list[psutil.Process]) -> list[psutil.Process]:
    alive = []
    for process in family:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive
