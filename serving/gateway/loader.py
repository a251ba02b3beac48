"""Make sure that an upstream has an adapter before a request is sent there."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping

from ...adapters import Adapter, TraitRouteError, WeightStore
from ..http.errors import RefusedError
from ..loading import LoadError
from ..middleware.naming import no_such_model
from ..state import ServerState
from .fleet import Fleet, Target
from .options import GatewayOptions
from .upstream import NotSentError, Upstream

RETRY_AFTER_S = 60.0
"""How long an upstream's refusal is remembered, so that a broken adapter does not cost every request."""


class FleetLoader:
    """The `AdapterLoader` over a fleet, which also knows who can answer a request for a model."""

    def __init__(self, fleet: Fleet, state: ServerState, options: GatewayOptions) -> None:
        self._fleet = fleet
        self._state = state
        self._weights = options.weights
        self._adapters: Mapping[str, Adapter] = {}
        self._store: WeightStore | None = None
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refusals: dict[tuple[str, str], tuple[float, str]] = {}

    def offer(self, adapters: Mapping[str, Adapter], store: WeightStore) -> None:
        """Replace the adapters that may be served, by name."""
        self._adapters, self._store = adapters, store
        self._fleet.offer(tuple(adapters.values()), self._state.withheld)

    def adapter(self, name: str | None) -> Adapter | None:
        """The adapter of that name, if the registry offers it."""
        return self._adapters.get(name) if name is not None else None

    def resolve(self, model: str) -> str:
        """What a model's name stands for: the base model, where an upstream calls it so."""
        if model in self._adapters:
            return model
        bases = (upstream.base for upstream in self._fleet.healthy())
        return self._state.base_names[0] if model in bases else model

    def any_healthy(self) -> bool:
        """Whether any upstream is in rotation."""
        return bool(self._fleet.healthy())

    def targets(self, model: str | None, path: str) -> list[Target]:
        """Who can answer a request for `model` at `path`, as the client or the router named it.

        Raises:
            RefusedError: it is neither an adapter nor the base model nor anything else that an upstream lists, or no
                upstream is asked at that path.
        """
        asked = self._named(model)
        left = [target for target in asked if target.upstream.dialect.opens(path)]
        if asked and not left:
            raise RefusedError(f"no upstream here is asked for {path}", status=404)
        return left

    def _named(self, model: str | None) -> list[Target]:
        if model is None:
            return [Target(upstream) for upstream in self._fleet.healthy()]
        if (adapter := self.adapter(model)) is not None:
            return self._fleet.holding(adapter)
        if model in self._state.base_names:
            return self._fleet.with_base()
        targets = self._fleet.listing(model)
        if not targets and self.any_healthy():
            raise no_such_model(model)
        return targets

    def holds(self, name: str) -> bool:
        """Whether an upstream in rotation has the adapter loaded."""
        adapter = self._adapters.get(name)
        return adapter is not None and bool(self._fleet.holding(adapter))

    async def ensure(self, name: str) -> None:
        """Return once an upstream has the adapter, or none is in rotation and nothing can be answered.

        Raises:
            LoadError: it is unknown, its weights are damaged, or no upstream takes it.
        """
        adapter = self._adapters.get(name)
        if adapter is None:
            raise LoadError(f"the registry offers no adapter {name!r}")
        if self._fleet.holding(adapter) or not self._fleet.healthy():
            return
        async with self._locks[name]:
            if not self._fleet.holding(adapter):
                await self._load(adapter)

    async def _load(self, adapter: Adapter) -> None:
        """Load it into the first upstream that takes it, the least busy one first."""
        path = await self._path(adapter)
        why = f"{adapter.name}: no upstream is in rotation"
        for upstream in sorted(self._fleet.healthy(), key=lambda u: u.outstanding):
            try:
                await self._load_into(upstream, adapter, path)
                return
            except (LoadError, NotSentError) as exc:
                why = str(exc)
        raise LoadError(why)

    async def _load_into(self, upstream: Upstream, adapter: Adapter, path: str) -> None:
        case = (upstream.url, adapter.weights_digest)
        until, why = self._refusals.get(case, (0.0, ""))
        if time.monotonic() < until:
            raise LoadError(why)
        try:
            await upstream.load(adapter, path)
        except LoadError as exc:
            self._refusals[case] = (time.monotonic() + RETRY_AFTER_S, str(exc))
            raise

    async def _path(self, adapter: Adapter) -> str:
        """Verify the weights and say where the upstreams see them."""
        digest, store = adapter.weights_digest, self._store
        if store is None or not self._can_load():
            raise LoadError(f"{adapter.name}: no upstream has it, and --load allows none to load it")
        try:
            await asyncio.to_thread(store.verify, digest)
        except (TraitRouteError, OSError) as exc:
            raise LoadError(f"{adapter.name}: its stored weights are damaged or missing") from exc
        return str(store.path(digest) if self._weights is None else self._weights / digest)

    def _can_load(self) -> bool:
        dialects = [upstream.dialect for upstream in self._fleet.healthy()]
        return any(dialect.load_path or dialect.by_path for dialect in dialects)
