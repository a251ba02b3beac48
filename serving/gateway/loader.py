"""The adapter loader of the gateway, which also knows the upstreams that can answer a request for a model."""

from functools import partial

from ...adapters import Adapter, WeightStore
from ..constraints import no_such_model
from ..http.errors import RefusedError
from ..loading import LoadError, OnDemandLoader, verified
from ..snapshot import RegistrySnapshot
from ..state import ServerState
from .fleet import Fleet, Target
from .options import GatewayOptions
from .upstream import NotSentError


class FleetLoader(OnDemandLoader):
    """Loads adapters into the upstreams of a fleet."""

    def __init__(self, fleet: Fleet, state: ServerState, options: GatewayOptions) -> None:
        super().__init__()
        self._fleet = fleet
        self._state = state
        self._weights = options.weights

    def offer(self, snapshot: RegistrySnapshot) -> None:
        """Replace the adapters that may be loaded."""
        super().offer(snapshot)
        self._fleet.offer(tuple(snapshot.adapters.values()), snapshot.withheld)

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

    def _is_loaded(self, adapter: Adapter) -> bool:
        return bool(self._fleet.holding(adapter))

    def _is_served(self, adapter: Adapter, store: WeightStore) -> bool:
        # With none in rotation nothing is loaded, and nothing can be answered.
        return self._is_loaded(adapter) or not self._fleet.healthy()

    async def _load(self, adapter: Adapter, store: WeightStore) -> None:
        """Load it into the first upstream that takes it, the least busy one first."""
        healthy = self._fleet.healthy()
        if not any(each.dialect.load_path or each.dialect.by_path for each in healthy):
            raise LoadError(f"{adapter.name}: no upstream has it, and --load allows none to load it")
        await verified(adapter, store)
        digest = adapter.weights_digest
        path = str(store.path(digest) if self._weights is None else self._weights / digest)
        why = f"{adapter.name}: no upstream is in rotation"
        for upstream in sorted(self._fleet.healthy(), key=lambda u: u.outstanding):
            try:
                await self._attempt((upstream.url, digest), partial(upstream.load, adapter, path))
                return
            except (LoadError, NotSentError) as exc:
                why = str(exc)
        raise LoadError(why)
