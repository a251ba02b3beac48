"""Keep a server's routing at the registry's newest revision; in trouble keep what is known, and say so once."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..adapters import Adapter, Registry, WeightStore
from ..adapters.registry.database import Changes, Polling
from .health import RegistryHealth
from .snapshot import RegistrySnapshot
from .state import ServerState
from .traffic import DemandKeeper

POLL_S = 1.0
"""How often a registry in a file is looked at; one on a server tells by itself."""
ANSWER_S = 15.0
"""After so long a registry that is asked counts as lost, though its answer is waited for: a server may hang, or a network drive."""
_logger = logging.getLogger(__name__)
T = TypeVar("T")


class RegistryWatcher:
    """Updates `state` from the registry that `open_registry` opens.

    `offer` is told the adapters that may be served, by name, and where their weights lie, before requests see them.
    """

    def __init__(
        self,
        state: ServerState,
        open_registry: Callable[[], Registry],
        offer: Callable[[dict[str, Adapter], WeightStore], None],
    ) -> None:
        self._state = state
        self._open = open_registry
        self._offer = offer
        self._demands = DemandKeeper(state)
        self.contact = RegistryHealth()
        self._registry: Registry | None = None
        self._changes: Changes = Polling(POLL_S)
        self._look: asyncio.Future[tuple[Registry, RegistrySnapshot]] | None = None
        self._contents: RegistrySnapshot | None = None
        self._complaint = ""

    async def start(self) -> None:
        """Read the registry once, and keep following its changes until `stop`."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow())
        self._demands.start()

    async def stop(self) -> None:
        """Stop following."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._demands.stop()
        await self._changes.close()
        if self._registry is not None:
            await asyncio.to_thread(self._registry.close)

    async def refresh(self) -> None:
        """Take over what the registry offers where it changed."""
        look = self._look = self._look or _begin(self._newest)
        await asyncio.wait({look}, timeout=ANSWER_S)
        if not look.done():
            self._lose(f"no answer for {ANSWER_S:g} s")
            return
        self._look = None
        try:
            registry, contents = look.result()
            if contents is not self._contents:
                self._take_over(contents, registry)
            self._confirm()
        except Exception as exc:  # noqa: BLE001 - the outer boundary: a follower that ended here would do so in silence
            self._lose(" ".join(str(exc).split()) or type(exc).__name__)
            # Who knows what becomes of it meanwhile; a database may be restored from a backup.
            self._contents = None

    def _lose(self, why: str) -> None:
        self.contact.lose()
        self._complain(f"the registry cannot be read: {why}")
        if self._state.location is None:
            self._state.no_router = "no-profile: the registry cannot be read"

    def _confirm(self) -> None:
        if self.contact.age_s is not None and not self.contact.reachable:
            _logger.warning("traitroute: the registry is back")
            self._complaint = ""
        self.contact.confirm()

    def _newest(self) -> tuple[Registry, RegistrySnapshot]:
        registry = self._current()
        return registry, self._read(registry)

    def _current(self) -> Registry:
        """The registry, opened anew where what is open no longer shows what is at its path."""
        if self._registry is not None and not self._registry.is_outdated():
            return self._registry
        opened = self._open()
        if self._registry is not None:
            self._registry.close()
            if self._registry.file != opened.file:
                self._contents = None
        self._registry, self._changes = opened, opened.changes(poll_s=POLL_S)
        return opened

    async def _follow(self) -> None:
        while True:
            if self._look is None:
                await self._changes.wait()
            await self.refresh()

    def _read(self, registry: Registry) -> RegistrySnapshot:
        """What the registry offers now: what is known already where nothing has changed."""
        known = self._contents
        if known is not None and registry.revision() == known.revision:
            return known
        return RegistrySnapshot.read(registry, known, base_names=self._state.base_names)

    def _take_over(self, contents: RegistrySnapshot, registry: Registry) -> None:
        """Runs on the event loop, so that no request sees half of it."""
        routed = contents.routed
        if contents.shadowed - (self._contents.shadowed if self._contents else frozenset()):
            _logger.warning(
                "traitroute: not served: %s, for this server calls its base model so, and answers by it: add the "
                "adapter under another name",
                ", ".join(sorted(contents.shadowed)),
            )
        # What was offered once and is no longer known was removed.
        seen = contents.withheld | self._state.withheld | self._state.adapters
        self._state.withheld = seen - contents.offered.keys()
        self._offer(contents.offered, registry.weights)
        self._state.adapters, self._state.tags = frozenset(contents.offered), contents.tags
        if routed.router is not self._state.router:
            self._demands.watch(routed.router)
        self._state.router, self._state.no_router = routed.router, routed.no_router
        self._state.location = registry.location
        self._state.snapshot = contents.snapshot
        self._contents = contents
        if routed.router is None:
            self._complain(routed.no_router)

    def _complain(self, message: str) -> None:
        """Log a warning once, not at every poll."""
        if message != self._complaint:
            _logger.warning("traitroute: %s", message)
        self._complaint = message


def _begin(work: Callable[[], T]) -> asyncio.Future[T]:
    """Do `work` in a thread that no ending process waits for: the registry may never answer."""
    future = Future[T]()

    def do() -> None:
        future.set_running_or_notify_cancel()
        try:
            future.set_result(work())
        except Exception as exc:  # noqa: BLE001 - told by who waits for it
            future.set_exception(exc)

    threading.Thread(target=do, daemon=True).start()
    return asyncio.wrap_future(future)
