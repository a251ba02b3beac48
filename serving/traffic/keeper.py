"""Writes what a server saw of its requests to the registry, a window at a time."""

import asyncio
import logging
import os
from collections import deque

from ...adapters import DatabaseError, DemandWindow, Registry, RegistryError
from ...router import Router
from ..state import ServerState
from .watch import DemandWatch

VARIABLE = "TRAITROUTE_WATCH"
"""Set to 0, nothing is watched."""
WINDOW_S = 60.0
_logger = logging.getLogger(__name__)


class DemandKeeper:
    """Watches what `state` routes; a registry that cannot be written loses the windows and nothing else."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._on = os.environ.get(VARIABLE) != "0"
        # Filled on the event loop, emptied in a thread.
        self._left: deque[DemandWindow] = deque()
        self._complained = False

    def start(self) -> None:
        """Keep windows until `stop`."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Keep what is there, and stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self.keep)

    def watch(self, router: Router | None) -> None:
        """Watch what `router` routes from now on."""
        self._take()
        if router is None or not self._on:
            self._state.watch = None
        else:
            self._state.watch = DemandWatch(router.profile, router.version)

    def keep(self) -> None:
        """Write what was seen since the last time."""
        self._take()
        if not self._left or self._state.location is None:
            return
        try:
            # Opened anew each time: a handle that is kept would go on writing into a file that was replaced.
            with Registry.open(self._state.location) as registry:
                while self._left:
                    registry.put_demand_window(self._left.popleft())
        except (DatabaseError, RegistryError) as exc:
            if not self._complained:
                _logger.warning("traitroute: what is seen of the requests is not kept: %s", exc)
            self._complained = True
            self._left.clear()

    def _take(self) -> None:
        window = self._state.watch.take() if self._state.watch is not None else None
        if window is not None:
            self._left.append(window)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(WINDOW_S)
            await asyncio.to_thread(self.keep)
