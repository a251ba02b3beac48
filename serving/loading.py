"""Loading adapters into the engine behind a server when requests ask for them."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol, TypeVar

from ..adapters import Adapter, AdapterFiles, RunError, TraitRouteError, WeightStore
from .engines.probe import Effect
from .proof import Proof
from .slots import Slots
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


OnProof = Callable[[str, Proof], None]


def ignore_proof(adapter: str, proof: Proof) -> None:
    """Do nothing."""


class OnDemandLoader(ABC):
    """Loads the adapters that the registry offers, each by one request at a time, and remembers what failed.

    With `base_digest`, only adapters that were trained for that base model. Each load is followed by a proof that the
    server applies what it loaded, which `on_proof` is called with, and an adapter that is idle is not served. `slots`
    are told what is asked for.
    """

    def __init__(
        self, *, base_digest: str | None = None, on_proof: OnProof = ignore_proof, slots: Slots | None = None
    ) -> None:
        self._base_digest = base_digest
        self._slots = slots
        self._on_proof = on_proof
        self._adapters: Mapping[str, Adapter] = {}
        self._store: WeightStore | None = None
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failures: dict[Hashable, tuple[float, str]] = {}
        # What the probe showed, by the weights' digests, and when to try again where it could not be read.
        self._found: dict[str, Effect | str] = {}
        self._read_again: dict[str, float] = {}
        self._readers: set[asyncio.Task[None]] = set()

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

    def proof(self, name: str) -> Proof | None:
        """Whether this server is known to apply the adapter; None before it was loaded."""
        adapter = self.adapter(name)
        found = None if adapter is None else self._found.get(adapter.weights_digest)
        return None if adapter is None or found is None else Proof.of(adapter, found)

    async def ensure(self, name: str) -> None:
        """Return once requests that name the adapter are answered by it.

        Raises:
            LoadError: it is unknown, of another base model, its weights are damaged, the engine refuses them, or
                answers as the base model does nevertheless.
        """
        await self._ensure(name)
        if self._slots is not None:
            self._slots.asked(name)

    def _timed(self) -> AbstractContextManager[None]:
        """Times what loads an adapter into the engine."""
        return nullcontext() if self._slots is None else self._slots.loading()

    async def _ensure(self, name: str) -> None:
        adapter, store = self._adapters.get(name), self._store
        if adapter is None or store is None:
            raise LoadError(f"the registry offers no adapter {name!r}")
        if self._is_served(adapter, store):
            self._prove_again(adapter)
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

    def _is_idle(self, adapter: Adapter) -> bool:
        """Whether the adapter was found to change nothing here."""
        found = self._found.get(adapter.weights_digest)
        return found is not None and Proof.of(adapter, found).is_idle

    @abstractmethod
    async def _prove(self, adapter: Adapter) -> None:
        """Read the probe through the server, and `_judge` what it shows."""

    def _judge(self, adapter: Adapter, found: Effect | str) -> None:
        """Note what the probe showed.

        Raises:
            LoadError: the adapter changes nothing here.
        """
        digest, proof = adapter.weights_digest, Proof.of(adapter, found)
        self._found[digest] = found
        self._read_again.pop(digest, None)
        if isinstance(found, str):
            self._read_again[digest] = time.monotonic() + RETRY_AFTER_S
        self._on_proof(adapter.name, proof)
        if proof.is_idle:
            raise LoadError(set_aside(adapter, proof))

    def _prove_again(self, adapter: Adapter) -> None:
        """Read the probe beside the requests, where it could not be read a while ago."""
        again = self._read_again.get(adapter.weights_digest)
        if again is None or time.monotonic() < again:
            return
        del self._read_again[adapter.weights_digest]
        self._in_background(self._prove(adapter))

    def _in_background(self, proving: Coroutine[Any, Any, None]) -> None:
        async def prove() -> None:
            with suppress(LoadError):
                await proving

        task = asyncio.create_task(prove())
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

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


def set_aside(adapter: Adapter, proof: Proof) -> str:
    """Why an adapter is not served that changes nothing, and what to do."""
    cure = "check its weights and target modules"
    if adapter.effect is None:
        cure += f", or measure it: traitroute adapters measure {adapter.name}"
    return f"{adapter.name} is set aside: {proof.reason}; {cure}"


async def verified(adapter: Adapter, store: WeightStore) -> AdapterFiles:
    """The adapter's stored weights, once they are checked.

    Raises:
        LoadError: they are damaged or missing.
    """
    try:
        return await asyncio.to_thread(store.verify, adapter.weights_digest)
    except (TraitRouteError, OSError) as exc:
        raise LoadError(f"{adapter.name}: its stored weights are damaged or missing") from exc
