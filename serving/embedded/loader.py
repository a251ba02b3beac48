"""The adapter loader of the embedded server."""

from ...adapters import Adapter, WeightsError, WeightStore
from ..loading import LoadError, OnDemandLoader, OnProof, ignore_proof
from ..slots import Slots
from ..snapshot import RegistrySnapshot
from .decoder import Decoder


class EmbeddedLoader(OnDemandLoader):
    """Loads adapters into `decoder`; one that was loaded may have made room for others since, and is loaded again."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        base_digest: str | None = None,
        on_proof: OnProof = ignore_proof,
        slots: Slots | None = None,
    ) -> None:
        super().__init__(base_digest=base_digest, on_proof=on_proof, slots=slots)
        self._decoder = decoder

    def offer(self, snapshot: RegistrySnapshot) -> None:
        """Replace the adapters that may be loaded."""
        super().offer(snapshot)
        if snapshot.weights is not None:
            self._decoder.use_store(snapshot.weights)

    def _is_loaded(self, adapter: Adapter) -> bool:
        return self._decoder.mixed.loads(adapter.weights_digest) and not self._is_idle(adapter)

    def _is_served(self, adapter: Adapter, store: WeightStore) -> bool:
        return self._is_loaded(adapter) and _is_stored(adapter, store)

    async def _load(self, adapter: Adapter, store: WeightStore) -> None:
        async def load() -> None:
            if not _is_stored(adapter, store):
                raise LoadError(f"{adapter.name}: its stored weights are damaged or missing")
            with self._timed():
                await self._decoder.load(adapter)
            await self._prove(adapter)

        await self._attempt(adapter.weights_digest, load)

    async def _prove(self, adapter: Adapter) -> None:
        """The decoder has read the probe as it loaded the adapter."""
        effect = self._decoder.mixed.effect(adapter.weights_digest)
        self._judge(adapter, effect or "the model computed no numbers")


def _is_stored(adapter: Adapter, store: WeightStore) -> bool:
    try:
        store.path(adapter.weights_digest)
    except WeightsError:
        return False
    return True
