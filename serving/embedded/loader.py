"""The adapter loader of the embedded server."""

from ...adapters import Adapter, WeightsError, WeightStore
from ..loading import LoadError, OnDemandLoader
from ..snapshot import RegistrySnapshot
from .decoder import Decoder


class EmbeddedLoader(OnDemandLoader):
    """Loads adapters into `decoder`; one that was loaded may have made room for others since, and is loaded again."""

    def __init__(self, decoder: Decoder, *, base_digest: str | None = None) -> None:
        super().__init__(base_digest=base_digest)
        self._decoder = decoder

    def offer(self, snapshot: RegistrySnapshot) -> None:
        """Replace the adapters that may be loaded."""
        super().offer(snapshot)
        if snapshot.weights is not None:
            self._decoder.use_store(snapshot.weights)

    def _is_loaded(self, adapter: Adapter) -> bool:
        return self._decoder.mixed.is_proven(adapter.weights_digest)

    def _is_served(self, adapter: Adapter, store: WeightStore) -> bool:
        return self._is_loaded(adapter) and _is_stored(adapter, store)

    async def _load(self, adapter: Adapter, store: WeightStore) -> None:
        async def load() -> None:
            if not _is_stored(adapter, store):
                raise LoadError(f"{adapter.name}: its stored weights are damaged or missing")
            await self._decoder.load(adapter)

        await self._attempt(adapter.weights_digest, load)


def _is_stored(adapter: Adapter, store: WeightStore) -> bool:
    try:
        store.path(adapter.weights_digest)
    except WeightsError:
        return False
    return True
