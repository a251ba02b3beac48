"""The adapter loader of the gateway, which also knows the upstreams that can answer a request for a model."""

import asyncio
import time
from functools import partial

from ...adapters import Adapter, WeightStore
from ..constraints import no_such_model
from ..http.errors import RefusedError
from ..loading import LoadError, OnDemandLoader, OnProof, ignore_proof, set_aside, verified
from ..proof import Proof
from ..snapshot import RegistrySnapshot
from ..state import ServerState
from .fleet import Fleet, Target
from .options import GatewayOptions
from .upstream import NotSentError, Upstream

PROVE_AGAIN_S = 600.0
"""How long an upstream that could not be asked for a proof, or gave none, is left alone: it may charge for answers."""


class FleetLoader(OnDemandLoader):
    """Loads adapters into the upstreams of a fleet."""

    def __init__(
        self, fleet: Fleet, state: ServerState, options: GatewayOptions, *, on_proof: OnProof = ignore_proof
    ) -> None:
        super().__init__(on_proof=on_proof, slots=state.slots)
        self._fleet = fleet
        self._state = state
        self._weights = options.weights
        self._sends = options.sends

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

    def proof(self, name: str) -> Proof | None:
        """Whether the upstreams that have the adapter are known to apply it: the worst that is known of any."""
        adapter = self.adapter(name)
        listed = () if adapter is None else self._fleet.listing_adapter(adapter)
        proofs = [proof for each in listed if adapter and (proof := each.proof(adapter)) is not None]
        return min(proofs, key=lambda proof: (not proof.is_idle, proof.effect is not None), default=None)

    def _is_loaded(self, adapter: Adapter) -> bool:
        return any((p := u.proof(adapter)) is None or not p.is_idle for u in self._fleet.listing_adapter(adapter))

    def _is_served(self, adapter: Adapter, store: WeightStore) -> bool:
        # With none in rotation nothing is loaded, and nothing can be answered from here.
        return bool(self._fleet.holding(adapter)) or (self._sends and not self._fleet.healthy())

    async def _load(self, adapter: Adapter, store: WeightStore) -> None:
        """Load it into the first upstream that takes it, the least busy one first, unless one has it."""
        await self._prove(adapter)
        if self._fleet.holding(adapter):
            return
        proof, why = self.proof(adapter.name), f"{adapter.name}: no upstream is in rotation"
        if proof is not None:
            why = set_aside(adapter, proof)
        if not any(each.dialect.load_path or each.dialect.asked_as for each in self._fleet.healthy()):
            none = f"{adapter.name}: no upstream has it, and --load allows none to load it"
            raise LoadError(none if proof is None else why)
        await verified(adapter, store)
        digest = adapter.weights_digest
        path = str(store.path(digest) if self._weights is None else self._weights / digest)
        left = [each for each in self._fleet.healthy() if each.name_of(adapter) is None]
        for upstream in sorted(left, key=lambda u: u.outstanding):
            try:
                await self._attempt((upstream.url, digest), partial(self._load_into, upstream, adapter, path))
                return
            except (LoadError, NotSentError) as exc:
                why = str(exc)
        raise LoadError(why)

    async def _load_into(self, upstream: Upstream, adapter: Adapter, path: str) -> None:
        with self._timed():
            await upstream.load(adapter, path)
        proof = await upstream.prove(adapter)
        self._on_proof(adapter.name, proof)
        if proof.is_idle:
            raise LoadError(set_aside(adapter, proof))

    async def _prove(self, adapter: Adapter) -> None:
        """Ask the upstreams that have the adapter and were not asked yet, or could not be."""
        unread = [each for each in self._fleet.listing_adapter(adapter) if _is_unread(each.proof(adapter))]
        for proof in await asyncio.gather(*(each.prove(adapter) for each in unread)):
            self._on_proof(adapter.name, proof)

    def _prove_again(self, adapter: Adapter) -> None:
        proofs = [each.proof(adapter) for each in self._fleet.listing_adapter(adapter)]
        due, now = self._read_again.get(adapter.weights_digest, 0.0), time.monotonic()
        if None in proofs or (any(map(_is_unread, proofs)) and now > due):
            self._read_again[adapter.weights_digest] = now + PROVE_AGAIN_S
            self._in_background(self._prove(adapter))


def _is_unread(proof: Proof | None) -> bool:
    return proof is None or proof.effect is None
