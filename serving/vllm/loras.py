"""Load adapters into a running vLLM, under ids that agree between server processes.

vLLM numbers the adapters it loads by itself per process, so two API servers over one engine give one id
to two adapters and answer from the wrong one. Ids here come from the weights' digest instead, and the
weights are served from the immutable store: the engine reloads an evicted adapter from its path.

vLLM passes over tensors for layers that it does not have or does not adapt, and copies matrices that are smaller than
the layer's into a corner of it, all without a word. So what an adapter changes is compared with the base model first,
and afterwards the probe shows, through the engine itself, whether it changes anything (`proof`).
"""

import asyncio
import math
import time
import uuid
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapters import Adapter, AdapterFiles, AdapterState, WeightsError, WeightStore
from ...adapters.weights.base_shapes import BaseShapes
from ..engines.engine import prompt_ids
from ..engines.probe import LIKELIEST, Distribution, ProbeError, messages, within_vocabulary
from ..loading import LoadError, OnDemandLoader, OnProof, ignore_proof, verified
from ..proof import Prover
from ..slots import Slots
from ..snapshot import RegistrySnapshot
from .options import lora_modules

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

ANSWERED_AFTER_S = 300.0
"""So long after its replacement nobody is answered by an adapter any more, so its slot can be given away."""


class LoraLoader(OnDemandLoader):
    """Loads adapters through vLLM's engine client, into its table of LoRA requests by name.

    `room` is the number of adapters that may be loaded at all (None: any number); `modules` are those that the server
    adapts (None: whichever an adapter has); `base` is the base model's folder (None: not at hand, so measured adapters
    show its layers), and `base_digest` the base model that adapters must be for (None: whichever).
    """

    def __init__(
        self,
        engine: "AsyncLLM",
        lora_requests: "dict[str, LoRARequest]",
        *,
        room: int | None = None,
        modules: Collection[str] | None = None,
        base: Path | None = None,
        base_digest: str | None = None,
        on_proof: OnProof = ignore_proof,
        slots: Slots | None = None,
    ) -> None:
        super().__init__(base_digest=base_digest, on_proof=on_proof, slots=slots)
        self._engine = engine
        self._requests = lora_requests
        self._room = room
        self._modules = None if modules is None else frozenset(modules)
        self._base = base
        self._prover: Prover[LoRARequest] = Prover(self._ask)
        # When each loaded adapter was withdrawn, by its id; infinite for those that are offered.
        self._taken: dict[int, float] = {}

    def offer(self, snapshot: RegistrySnapshot) -> None:
        """Replace the adapters that may be loaded; what is withdrawn is no longer served.

        Nor is what is withheld, which vLLM's command line may name.
        """
        for name in {*self._adapters, *snapshot.withheld} - snapshot.adapters.keys():
            self._requests.pop(name, None)
        super().offer(snapshot)
        offered = {adapter.serving_id for adapter in snapshot.adapters.values()}
        for serving_id, withdrawn in self._taken.items():
            self._taken[serving_id] = math.inf if serving_id in offered else min(withdrawn, time.monotonic())

    def _is_loaded(self, adapter: Adapter) -> bool:
        request = self._requests.get(adapter.name)
        return request is not None and request.lora_int_id == adapter.serving_id and not self._is_idle(adapter)

    async def _load(self, adapter: Adapter, store: WeightStore) -> None:
        add = partial(self._add, adapter, store)
        self._requests[adapter.name] = await self._attempt(adapter.weights_digest, add)

    async def _add(self, adapter: Adapter, store: WeightStore) -> "LoRARequest":
        from vllm.lora.request import LoRARequest

        files = await verified(adapter, store)
        self._check_modules(adapter.name, files)
        await asyncio.to_thread(self._check_layers, adapter, files, store)
        await self._make_room(adapter)
        path = str(store.path(adapter.weights_digest))
        request = LoRARequest(adapter.name, adapter.serving_id, path)
        try:
            with self._timed():
                added = await self._engine.add_lora(request)
        except Exception as exc:
            # The engine's errors arrive as plain Exception.
            raise LoadError(f"{adapter.name}: {_short(exc, path)}") from exc
        if not added:
            raise LoadError(f"{adapter.name}: vLLM did not take it")
        self._taken[adapter.serving_id] = math.inf
        await self._prove(adapter, request)
        return request

    async def _prove(self, adapter: Adapter, request: "LoRARequest | None" = None) -> None:
        request = request or self._requests[adapter.name]
        try:
            self._judge(adapter, await self._prover.read(request))
        except LoadError:
            self._requests.pop(adapter.name, None)
            self._taken.pop(adapter.serving_id, None)
            await self._engine.remove_lora(adapter.serving_id)
            raise

    async def _ask(self, request: "LoRARequest | None", text: str) -> Distribution:
        """What the engine says of the token that comes next after one text; read anew, past the prefix cache."""
        from vllm import SamplingParams

        tokenizer, model = self._engine.tokenizer, self._engine.model_config
        if tokenizer is None:
            raise ProbeError("vLLM was started without a tokenizer (--skip-tokenizer-init)")
        ids = within_vocabulary(prompt_ids(tokenizer, messages(text)), model.get_vocab_size())
        count = LIKELIEST if model.max_logprobs < 0 else min(LIKELIEST, model.max_logprobs)
        wanted = SamplingParams(
            max_tokens=1, temperature=0, logprobs=count, detokenize=False, skip_reading_prefix_cache=True
        )
        asked = self._engine.generate(
            {"prompt_token_ids": ids}, wanted, f"traitroute-probe-{uuid.uuid4().hex}", lora_request=request
        )
        given = [output.outputs[0].logprobs async for output in asked][-1]
        if not given:
            raise ProbeError("vLLM gave no log-probabilities")
        return {token: entry.logprob for token, entry in given[0].items()}

    def _check_modules(self, name: str, files: AdapterFiles) -> None:
        if files.unservable is not None:
            raise LoadError(f"{name}: {files.unservable}")
        if self._modules is None:
            return
        if lost := (needed := lora_modules(files.layers)) - self._modules:
            wanted = " ".join(sorted(self._modules | needed))
            raise LoadError(
                f"{name}: this server does not adapt {', '.join(sorted(lost))}; restart it with "
                f"--lora-target-modules {wanted}"
            )

    def _check_layers(self, adapter: Adapter, files: AdapterFiles, store: WeightStore) -> None:
        if self._base is None and adapter.state is AdapterState.READY:
            # Where the base model's files are not at hand, the adapters that were measured on it show its layers.
            return
        measured = [
            store.root / each.weights_digest
            for each in self._adapters.values()
            if each.state is AdapterState.READY and each.base_digest == adapter.base_digest
        ]
        try:
            BaseShapes.known(self._base, measured).check(files)
        except (WeightsError, OSError) as exc:
            raise LoadError(f"{adapter.name}: {exc}") from exc

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
