"""Keep a server's snapshot at the registry's newest revision; in trouble keep the last one, and say so once."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypedDict, TypeVar

from ..adapters import Registry
from ..adapters.registry.database import Changes, Polling
from .middleware.record import open_metrics
from .snapshot import RegistrySnapshot
from .state import ServerState
from .traffic import DemandKeeper

POLL_S = 1.0
"""How often a registry in a file is looked at; a database server notifies by itself."""
ANSWER_S = 15.0
"""A registry that does not answer for so long counts as lost; its answer is still waited for: a drive may hang."""
STOP_S = 2.0
"""How long a server that stops waits for a registry that is being read."""
_logger = logging.getLogger(__name__)
T = TypeVar("T")


class HealthReport(TypedDict):
    """What `/health` says of the registry; `age_s` is null until it was read once."""

    reachable: bool
    age_s: float | None


class RegistryHealth:
    """Whether the registry can be read, and how old the snapshot is; kept here, and shown in the metrics."""

    def __init__(self) -> None:
        self.reachable = False
        self._confirmed: float | None = None

    def confirm(self) -> None:
        """The server's snapshot is the registry's newest revision, as of now."""
        self.reachable, self._confirmed = True, time.monotonic()
        open_metrics().registry(reachable=True)

    def lose(self) -> None:
        """The registry could not be read just now."""
        self.reachable = False
        open_metrics().registry(reachable=False)

    @property
    def age_s(self) -> float | None:
        """Seconds since the snapshot was last known to be the newest revision."""
        return None if self._confirmed is None else time.monotonic() - self._confirmed

    def report(self) -> HealthReport:
        """The same as JSON."""
        age = self.age_s
        return {"reachable": self.reachable, "age_s": None if age is None else round(age, 1)}


class RegistryWatcher:
    """Replaces the snapshot of `state` as the registry that `open_registry` opens changes.

    `offer` is called with each snapshot, on the event loop, before requests go by it.
    """

    def __init__(
        self, state: ServerState, open_registry: Callable[[], Registry], offer: Callable[[RegistrySnapshot], None]
    ) -> None:
        self._state = state
        self._open = open_registry
        self._offer = offer
        self._demands = DemandKeeper(state)
        self.health = RegistryHealth()
        self._registry: Registry | None = None
        self._changes: Changes = Polling(POLL_S)
        self._reading: asyncio.Future[RegistrySnapshot] | None = None
        # What was read last, of which nothing is read again; None after a failure.
        self._last: RegistrySnapshot | None = None
        self._warned_of = ""

    async def start(self) -> None:
        """Read the registry once, and watch it until `stop`."""
        await self.refresh()
        self._task = asyncio.create_task(self._watch())
        self._demands.start()

    async def stop(self) -> None:
        """Stop watching."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._demands.stop()
        await self._changes.close()
        if self._reading is not None:
            # A connection that is in use stays open when its registry is closed.
            await asyncio.wait({self._reading}, timeout=STOP_S)
            if not self._reading.done():
                return
        if self._registry is not None:
            await asyncio.to_thread(self._registry.close)

    async def refresh(self) -> None:
        """Read the registry, and replace the snapshot where it changed."""
        reading = self._reading = self._reading or _in_daemon_thread(self._read)
        await asyncio.wait({reading}, timeout=ANSWER_S)
        if not reading.done():
            self._lose(f"no answer for {ANSWER_S:g} s")
            return
        self._reading = None
        try:
            snapshot = reading.result()
            if snapshot is not self._last:
                self._replace(snapshot)
            self._confirm()
        except Exception as exc:  # noqa: BLE001 - the outer boundary: a watcher that ended here would do so in silence
            self._lose(" ".join(str(exc).split()) or type(exc).__name__)
            # It may be restored from a backup meanwhile, so all of it is read again.
            self._last = None

    def _replace(self, snapshot: RegistrySnapshot) -> None:
        if snapshot.shadowed - (self._last.shadowed if self._last else frozenset()):
            _logger.warning(
                "traitroute: not served: %s, for this server calls its base model so, and answers by it: add the "
                "adapter under another name",
                ", ".join(sorted(snapshot.shadowed)),
            )
        self._offer(snapshot)
        self._state.snapshot = self._last = snapshot
        if snapshot.router is None:
            self._warn_once(snapshot.no_router)

    def _confirm(self) -> None:
        if self.health.age_s is not None and not self.health.reachable:
            _logger.warning("traitroute: the registry is back")
            self._warned_of = ""
        self.health.confirm()

    def _lose(self, why: str) -> None:
        self.health.lose()
        self._warn_once(f"the registry cannot be read: {why}")
        if self._state.snapshot.location is None:
            self._state.snapshot = RegistrySnapshot(no_router="no-profile: the registry cannot be read")

    def _warn_once(self, message: str) -> None:
        """Log a warning, unless it was the last one."""
        if message != self._warned_of:
            _logger.warning("traitroute: %s", message)
        self._warned_of = message

    async def _watch(self) -> None:
        while True:
            if self._reading is None:
                await self._changes.wait()
            await self.refresh()

    def _read(self) -> RegistrySnapshot:
        """The newest revision; the last snapshot where nothing has changed."""
        registry, served = self._current(), self._state.snapshot
        if self._last is not None and registry.revision() == self._last.revision:
            return self._last
        return RegistrySnapshot.read(
            registry,
            self._last,
            base_names=self._state.base_names,
            offered_once=served.adapters.keys() | served.withheld,
        )

    def _current(self) -> Registry:
        """The registry, opened anew where what is open no longer shows what is at its path."""
        if self._registry is not None and not self._registry.is_outdated():
            return self._registry
        opened = self._open()
        if self._registry is not None:
            self._registry.close()
            if self._registry.file != opened.file:
                self._last = None
        self._registry, self._changes = opened, opened.changes(poll_s=POLL_S)
        return opened


def _in_daemon_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Do `work` in a thread that no ending process waits for: the registry may never answer."""
    future = Future[T]()

    def do() -> None:
        future.set_running_or_notify_cancel()
        try:
            future.set_result(work())
        except Exception as exc:  # noqa: BLE001 - raised where the future is awaited
            future.set_exception(exc)

    threading.Thread(target=do, daemon=True).start()
    return asyncio.wrap_future(future)
