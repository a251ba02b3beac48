"""Loading adapters into the engine behind a server when requests ask for them."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Protocol, TypeVar

from ..adapters import Adapter, AdapterFiles, RunError, TraitRouteError, WeightStore
from .snapshot import RegistrySnapshot

RETRY_AFTER_S = 60.0
"""How long a failure to load is remembered, so that a broken adapter does not cost every request."""
T = TypeVar("T")


class LoadError(RunError):
    """The server cannot load an adapter."""


class AdapterLoader(Protocol):
    """Whatever puts adapters into the engine behind the app."""

    async def ensure(self, name: str) -> None:
        """Return once the adapter can be served by its name.

        Raises:
            LoadError: it cannot be loaded.
        """
        ...


class NoLoader:
    """The loader of a server that has not finished starting."""

    async def ensure(self, name: str) -> None:
        """Refuse."""
        raise LoadError(f"{name!r} cannot be loaded before the server has started")


class OnDemandLoader(ABC):
    """Loads the adapters that the registry offers, each by one request at a time, and remembers what failed.

    With `base_digest`, only adapters that were trained for that base model.
    """

    def __init__(self, *, base_digest: str | None = None) -> None:
        self._base_digest = base_digest
        self._adapters: Mapping[str, Adapter] = {}
        self._store: WeightStore | None = None
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failures: dict[Hashable, tuple[float, str]] = {}

    def offer(self, snapshot: RegistrySnapshot) -> None:
        """Replace the adapters that may be loaded."""
        self._adapters, self._store = snapshot.adapters, snapshot.weights

    def adapter(self, name: str | None) -> Adapter | None:
        """The adapter that the name means now."""
        return self._adapters.get(name) if name is not None else None

    def holds(self, name: str) -> bool:
        """Whether the adapter is loaded."""
        adapter = self._adapters.get(name)
        return adapter is not None and self._is_loaded(adapter)

    async def ensure(self, name: str) -> None:
        """Return once requests that name the adapter are answered by it.

        Raises:
            LoadError: it is unknown, of another base model, its weights are damaged, or the engine refuses them.
        """
        adapter, store = self._adapters.get(name), self._store
        if adapter is None or store is None:
            raise LoadError(f"the registry offers no adapter {name!r}")
        if self._is_served(adapter, store):
            return
        async with self._locks[name]:
            if self._is_served(adapter, store):
                return
            if self._base_digest not in (None, adapter.base_digest):
                raise LoadError(f"{name}: it was trained for {adapter.base_model}, not for this base")
            await self._load(adapter, store)

    def _is_served(self, adapter: Adapter, store: WeightStore) -> bool:
        """Whether nothing has to be done before the adapter answers."""
        return self._is_loaded(adapter)

    @abstractmethod
    def _is_loaded(self, adapter: Adapter) -> bool: ...

    @abstractmethod
    async def _load(self, adapter: Adapter, store: WeightStore) -> None: ...

    async def _attempt(self, case: Hashable, load: Callable[[], Awaitable[T]]) -> T:
        """What `load` returns, unless it failed for this `case` a short while ago.

        Raises:
            LoadError: it failed, now or then.
        """
        until, reason = self._failures.get(case, (0.0, ""))
        if time.monotonic() < until:
            raise LoadError(reason)
        try:
            return await load()
        except LoadError as exc:
            self._failures[case] = (time.monotonic() + RETRY_AFTER_S, str(exc))
            raise


async def verified(adapter: Adapter, store: WeightStore) -> AdapterFiles:
    """The adapter's stored weights, once they are checked.

    Raises:
        LoadError: they are damaged or missing.
    """
    try:
        return await asyncio.to_thread(store.verify, adapter.weights_digest)
    except (TraitRouteError, OSError) as exc:
        raise LoadError(f"{adapter.name}: its stored weights are damaged or missing") from exc
