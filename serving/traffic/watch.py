"""Counts the requests that a server routes, and keeps the features of some that are like nothing profiled."""

import random
import threading

import numpy as np
from numpy.typing import NDArray

from ...adapters import DemandWindow
from ...router import RoutingDecision, RoutingProfile

SAMPLED = 32
"""So many novel requests of a window leave their features: a sample of all, by reservoir (Vitter, 1985)."""
NOVEL = 0.5
"""From this probability of a new kind a request counts as novel."""


class DemandWatch:
    """Sees what is routed with one profile, from any thread."""

    def __init__(self, profile: RoutingProfile, version: int) -> None:
        self._profile = profile
        self._version = version
        self._lock = threading.Lock()
        # Which requests are sampled decides nothing that has to be repeated.
        self._random = random.Random()
        self._requests = self._novel = 0
        self._sample: list[NDArray[np.float64]] = []

    def saw(self, text: str, decision: RoutingDecision) -> None:
        """Count a request, and keep its features where it is novel and drawn."""
        with self._lock:
            self._requests += 1
            if decision.novelty < NOVEL:
                return
            self._novel += 1
            place = self._random.randrange(self._novel)
        if place < SAMPLED:
            # Read outside the lock: it takes as long as routing.
            self._put(self._profile.features.row(text), place)

    def take(self) -> DemandWindow | None:
        """What was seen since the last time; None for nothing."""
        with self._lock:
            if not self._requests:
                return None
            window = DemandWindow(
                profile_version=self._version,
                requests=self._requests,
                novel=self._novel,
                features=DemandWindow.pack(self._sample),
            )
            self._requests = self._novel = 0
            self._sample = []
        return window

    def _put(self, features: NDArray[np.float64], place: int) -> None:
        with self._lock:
            if len(self._sample) < SAMPLED:
                self._sample.append(features)
            else:
                self._sample[place] = features
