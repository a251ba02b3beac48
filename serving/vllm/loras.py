"""Load adapters into a running vLLM, under ids that agree between server processes.

vLLM numbers the adapters it loads by itself per process, so two API servers over one engine give one id
to two adapters and answer from the wrong one. Ids here come from the weights' digest instead, and the
weights are served from the immutable store: the engine reloads an evicted adapter from its path.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ...adapters import Adapter, TraitRouteError, WeightStore
from ..routing import LoadError

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

RETRY_AFTER_S = 60.0
"""How long a failure to load is remembered, so that a broken adapter does not cost every request."""
ANSWERED_AFTER_S = 300.0
"""From then on after its replacement nobody is answered by an adapter any more, so its slot can be given away."""


class LoraLoader:
    """The `AdapterLoader` over vLLM's engine client and its table of LoRA requests by name.

    `room` is the number of adapters that may be loaded at all (None: any number); `modules` are those that the server
    adapts (None: whichever an adapter has).
    """

    def __init__(
        self,
        engine: "AsyncLLM",
        lora_requests: "dict[str, LoRARequest]",
        *,
        room: int | None = None,
        modules: Collection[str] | None = None,
    ) -> None:
        self._engine = engine
        self._requests = lora_requests
        self._room = room
        self._modules = None if modules is None else frozenset(modules)
        self._taken: dict[int, float] = {}
        self._adapters: Mapping[str, Adapter] = {}
        self._store: WeightStore | None = None
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failures: dict[str, tuple[float, str]] = {}

    def offer(self, adapters: Mapping[str, Adapter], store: WeightStore) -> None:
        """Replace the adapters that may be loaded, by name; what is withdrawn is no longer served."""
        for name in self._adapters.keys() - adapters.keys():
            self._requests.pop(name, None)
        self._adapters, self._store = adapters, store
        offered = {adapter.serving_id for adapter in adapters.values()}
        for serving_id in self._taken:
            withdrawn = min(self._taken[serving_id], time.monotonic())
            self._taken[serving_id] = math.inf if serving_id in offered else withdrawn

    def weights(self, name: str) -> str | None:
        """The digest of the weights that the name means now."""
        adapter = self._adapters.get(name)
        return adapter and adapter.weights_digest

    def holds(self, name: str) -> bool:
        """Whether the adapter is loaded."""
        adapter = self._adapters.get(name)
        return adapter is not None and self._is_loaded(adapter)

    async def ensure(self, name: str) -> None:
        """Return once requests that name the adapter are answered by it.

        Raises:
            LoadError: it is unknown, its weights are damaged, or the engine refuses them.
        """
        adapter, store = self._adapters.get(name), self._store
        if adapter is None or store is None:
            raise LoadError(f"the registry offers no adapter {name!r}")
        if self._is_loaded(adapter):
            return
        async with self._locks[name]:
            if not self._is_loaded(adapter):
                await self._load_or_remember(adapter, store)

    def _is_loaded(self, adapter: Adapter) -> bool:
        request = self._requests.get(adapter.name)
        return request is not None and request.lora_int_id == adapter.serving_id

    async def _load_or_remember(self, adapter: Adapter, store: WeightStore) -> None:
        until, reason = self._failures.get(adapter.weights_digest, (0.0, ""))
        if time.monotonic() < until:
            raise LoadError(reason)
        try:
            self._requests[adapter.name] = await self._load(adapter, store)
        except LoadError as exc:
            self._failures[adapter.weights_digest] = (time.monotonic() + RETRY_AFTER_S, str(exc))
            raise

    async def _load(self, adapter: Adapter, store: WeightStore) -> "LoRARequest":
        from vllm.lora.request import LoRARequest

        self._check_modules(adapter)
        await self._make_room(adapter)
        try:
            await asyncio.to_thread(store.verify, adapter.weights_digest)
        except (TraitRouteError, OSError) as exc:
            raise LoadError(f"{adapter.name}: its stored weights are damaged or missing") from exc
        path = str(store.path(adapter.weights_digest))
        request = LoRARequest(adapter.name, adapter.serving_id, path)
        try:
            added = await self._engine.add_lora(request)
        except Exception as exc:
            # The engine's errors arrive as plain Exception.
            raise LoadError(f"{adapter.name}: {_short(exc, path)}") from exc
        if not added:
            raise LoadError(f"{adapter.name}: vLLM did not take it")
        self._taken[adapter.serving_id] = math.inf
        return request

    def _check_modules(self, adapter: Adapter) -> None:
        # vLLM passes over what it does not adapt without a word, and so would serve half an adapter.
        lost = set(adapter.target_modules) - (self._modules or set(adapter.target_modules))
        if lost:
            wanted = " ".join(sorted(set(adapter.target_modules) | (self._modules or set())))
            raise LoadError(
                f"{adapter.name}: this server does not adapt {', '.join(sorted(lost))}; restart it with "
                f"--lora-target-modules {wanted}"
            )

    async def _make_room(self, adapter: Adapter) -> None:
        """Give away the slots of adapters that were withdrawn or replaced long ago, where they are needed."""
        if self._room is None:
            return
        others = {i: since for i, since in self._taken.items() if i != adapter.serving_id}
        for serving_id, since in others.items():
            if len(self._taken) < self._room or time.monotonic() - since < ANSWERED_AFTER_S:
                continue
            await self._engine.remove_lora(serving_id)
            self._taken.pop(serving_id, None)
        if len(self._taken.keys() | {adapter.serving_id}) > self._room:
            raise LoadError(
                f"{adapter.name}: on CPU this server has room for {self._room} adapters; "
                f"restart it with --max-loras {len(self._adapters) + 1} or more"
            )


def _short(error: Exception, path: str) -> str:
    text = str(error).removeprefix("Call to add_lora method failed: ").replace(path, "its weights")
    return (text.splitlines() or [type(error).__name__])[0][:160]
