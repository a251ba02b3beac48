"""Counts the requests that a server routes, keeps the features of some that are like nothing profiled, and stores both.

No text is kept, but for a few where the operator asks for it (`sampling.py`). A registry that cannot be written loses
what was counted, and nothing else.
"""

import asyncio
import logging
import os
import random
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...adapters import DatabaseError, DemandWindow, Registry, RegistryError
from ...router import RoutingDecision, RoutingProfile
from ..state import ServerState
from .sampling import Sampler

SAMPLED = 32
"""So many novel requests of a window leave their features: a sample of all, by reservoir (Vitter, 1985)."""
VARIABLE = "TRAITROUTE_WATCH"
"""Set to 0, nothing is watched."""
WINDOW_S = 60.0
_logger = logging.getLogger(__name__)


@dataclass
class _Counts:
    """What was seen of the requests routed with one profile version."""

    version: int
    requests: int = 0
    novel: int = 0
    sample: list[NDArray[np.float64]] = field(default_factory=list)

    def window(self) -> DemandWindow:
        return DemandWindow(
            profile_version=self.version,
            requests=self.requests,
            novel=self.novel,
            features=DemandWindow.pack(self.sample),
        )


class DemandWatch:
    """Counts what is routed, in windows of one profile version each; called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Which requests are sampled decides nothing that has to be repeated.
        self._random = random.Random()
        self._counts: list[_Counts] = []

    def see(self, text: str, decision: RoutingDecision, profile: RoutingProfile) -> None:
        """Count a request, and keep its features where it is novel and drawn."""
        with self._lock:
            counts = self._current(decision.profile_version)
            counts.requests += 1
            if not decision.is_new:
                return
            counts.novel += 1
            place = self._random.randrange(counts.novel)
        if place < SAMPLED:
            # Computed outside the lock: it takes as long as routing.
            features = profile.features.row(text)
            with self._lock:
                if len(counts.sample) < SAMPLED:
                    counts.sample.append(features)
                else:
                    counts.sample[place] = features

    def take(self) -> list[DemandWindow]:
        """What was seen since the last time."""
        with self._lock:
            taken, self._counts = self._counts, []
            return [counts.window() for counts in taken]

    def _current(self, version: int) -> _Counts:
        if not self._counts or self._counts[-1].version != version:
            self._counts.append(_Counts(version))
        return self._counts[-1]


class DemandKeeper:
    """Watches what a server routes, and writes it to the registry, a window at a time."""

    def __init__(self, state: ServerState) -> None:
        """Watch what `state` routes.

        Raises:
            InputError: the operator asks for samples in a way that cannot be.
        """
        self._state = state
        self._watch = DemandWatch()
        if os.environ.get(VARIABLE) != "0":
            state.watch = self._watch.see
        self._sampler = Sampler.from_environment()
        if self._sampler is not None:
            state.sample = self._sampler.see
        self._complained = False

    def start(self) -> None:
        """Keep windows until `stop`."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Keep what is there, and stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self.keep)

    def keep(self) -> None:
        """Write what was seen since the last time."""
        windows, location = self._watch.take(), self._state.snapshot.location
        if location is None or not (windows or self._sampler):
            return
        try:
            # Opened anew each time: a handle that is kept would go on writing into a file that was replaced.
            with Registry.open(location) as registry:
                for window in windows:
                    registry.put_demand_window(window)
                registry.forget_expired_samples()
                if self._sampler is not None:
                    self._sampler.keep(registry)
        except (DatabaseError, RegistryError) as exc:
            if not self._complained:
                _logger.warning("traitroute: what is seen of the requests is not kept: %s", exc)
            self._complained = True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(WINDOW_S)
            await asyncio.to_thread(self.keep)
