"""Which adapters an engine holds, so that of two that are about as good the one is chosen that need not be loaded.

An engine computes with so many adapters at a time, and loads another in the place of the one that was asked for longest
ago. So what it holds is known from the last requests, without asking it: those of this process, which is why there may
be only one. A gateway knows it of each upstream, by what it sent there. Off unless `TRAITROUTE_LOAD_COST` says how many
points of predicted gain (of 100) a second of loading is worth. Times that by how long loads took lately is what may be
given up, but never more than the prediction's own error.

A conversation does not follow what is held meanwhile: its later turns go where its first one went.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from cachetools import LRUCache, TTLCache

from ..adapters import InputError

VARIABLE = "TRAITROUTE_LOAD_COST"
MOST = 100.0
CONVERSATIONS, CONVERSATION_S = 10_000, 3600.0
NEWEST = 0.2
"""The weight of the newest load in the mean of how long loads take."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Held:
    """Adapters that need not be loaded, and how much predicted gain, in score points of [0, 1], may be given up."""

    names: frozenset[str]
    worth: float


class Recent:
    """The adapters that an engine with `count` slots was last asked for, and so holds."""

    def __init__(self, count: int) -> None:
        self._held: LRUCache[str, None] = LRUCache(max(count, 1))

    def asked(self, adapter: str) -> None:
        """An adapter answers a request, and is held now."""
        self._held[adapter] = None

    def names(self) -> frozenset[str]:
        """Those that are held."""
        return frozenset(self._held)

    def clear(self) -> None:
        """The engine was started anew."""
        self._held.clear()


class Slots:
    """What engines with `count` slots hold; on one event loop. `cost` is in points of [0, 1] a second.

    They hold what `names` says, and without it what was `asked` for here.
    """

    def __init__(self, count: int, cost: float, names: Callable[[], frozenset[str]] | None = None) -> None:
        self.count = count
        self.cost = cost
        self.load_s: float | None = None
        self._recent = Recent(count)
        self._names = names or self._recent.names
        self._conversations: TTLCache[bytes, str] = TTLCache(CONVERSATIONS, CONVERSATION_S)

    @classmethod
    def from_environment(cls, count: int | None, names: Callable[[], frozenset[str]] | None = None) -> "Slots | None":
        """The slots of engines with so many, where the operator has set what loading costs.

        Raises:
            InputError: it is no number, or out of range.
        """
        given = os.environ.get(VARIABLE, "").strip()
        try:
            points = float(given) if given else 0.0
        except ValueError:
            points = -1.0
        # Written so that NaN is refused too.
        if not 0 <= points <= MOST:
            raise InputError(
                f"{VARIABLE} is {given!r}: give the points of gain that a second of loading is worth, from 0 (off) to "
                f"{MOST:g}, as in 2"
            )
        if points and not count:
            _logger.warning("%s has no effect: it is not known how many adapters are held at a time", VARIABLE)
        return cls(count, points / 100, names) if points and count else None

    def asked(self, adapter: str) -> None:
        """An adapter answers a request, and is held now."""
        self._recent.asked(adapter)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Time a load, unless it fails."""
        start = perf_counter()
        yield
        took = perf_counter() - start
        self.load_s = took if self.load_s is None else (1 - NEWEST) * self.load_s + NEWEST * took

    def held(self, conversation: bytes) -> Held | None:
        """What a request of this conversation need not load; None where that makes no difference."""
        if (kept := self._conversations.get(_digest(conversation))) is not None:
            # It was worth it at the first turn.
            return Held(frozenset({kept}), 1.0)
        if not self.load_s or not (names := self._names()):
            return None
        return Held(names, self.cost * self.load_s)

    def keep(self, conversation: bytes, adapter: str) -> None:
        """A conversation goes to an adapter, and its later turns too."""
        self._conversations[_digest(conversation)] = adapter


def _digest(conversation: bytes) -> bytes:
    return hashlib.blake2b(conversation, digest_size=16).digest()
