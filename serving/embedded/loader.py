"""The `AdapterLoader` of the embedded server: which adapters may be asked for, and whether they load."""

import time
from collections.abc import Mapping

from ...adapters import Adapter, WeightsError, WeightStore
from ..loading import LoadError
from .decoder import Decoder

RETRY_AFTER_S = 60.0
"""How long a failure to load is remembered, so that a broken adapter does not cost every request."""


class EmbeddedLoader:
    """Loads adapters into `decoder`; with `base_digest`, only those trained for that base model."""

    def __init__(self, decoder: Decoder, *, base_digest: str | None = None) -> None:
        self._decoder = decoder
        self._base_digest = base_digest
        self._adapters: Mapping[str, Adapter] = {}
        self._store: WeightStore | None = None
        self._failures: dict[str, tuple[float, str]] = {}

    def offer(self, adapters: Mapping[str, Adapter], store: WeightStore) -> None:
        """Replace the adapters that may be asked for, by name."""
        self._decoder.use_store(store)
        self._adapters, self._store = adapters, store

    def adapter(self, name: str) -> Adapter | None:
        """The adapter that this name means now."""
        return self._adapters.get(name)

    def holds(self, name: str) -> bool:
        """Whether the adapter has been loaded; it may have made room for others since."""
        adapter = self._adapters.get(name)
        return adapter is not None and self._decoder.mixed.is_proven(adapter.weights_digest)

    async def ensure(self, name: str) -> None:
        """Return once the adapter can be served: loaded, or loaded before and still in the store.

        Raises:
            LoadError: it is unknown, its weights are damaged, or it cannot run here.
        """
        adapter = self._adapters.get(name)
        if adapter is None:
            raise LoadError(f"the registry offers no adapter {name!r}")
        if self._base_digest not in (None, adapter.base_digest):
            raise LoadError(f"{name}: it was trained for {adapter.base_model}, not for this base")
        until, reason = self._failures.get(adapter.weights_digest, (0.0, ""))
        if time.monotonic() < until:
            raise LoadError(reason)
        try:
            self._check_stored(adapter)
            await self._decoder.load(adapter)
        except LoadError as exc:
            self._failures[adapter.weights_digest] = (time.monotonic() + RETRY_AFTER_S, str(exc))
            raise

    def _check_stored(self, adapter: Adapter) -> None:
        try:
            if self._store is not None:
                self._store.path(adapter.weights_digest)
        except WeightsError as exc:
            raise LoadError(f"{adapter.name}: its stored weights are damaged or missing") from exc
