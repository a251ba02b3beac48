"""The base model with several adapters beside it, for batches in which each row names its own.

PEFT computes such batches when it is given `adapter_names`. An adapter's name here is its weights' digest, so
that new weights under an old name are another adapter. Adapters that would change what the base model or other
rows compute (a trained bias, replaced modules, decompositions of the base weights) are refused.
"""

import json
from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel

from ...adapters import AdapterFiles, TraitRouteError, WeightsError, WeightStore
from ..engines.decoding import prefill
from ..engines.local_model import LocalModel, load_weights, peft_config
from ..engines.probe import LIKELIEST, Effect, ProbeError, Reading, difference
from ..loading import LoadError

NO_ADAPTER = "__base__"
"""PEFT's name for rows without an adapter."""

_PLAIN = LoraConfig().to_dict()
_HARMLESS = {
    *("r", "lora_alpha", "lora_dropout", "lora_bias", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
    *("task_type", "peft_type", "peft_version", "auto_mapping", "runtime_config", "inference_mode"),
    *("base_model_name_or_path", "revision", "init_lora_weights", "megatron_core"),
}
_HARMLESS_STARTS = (True, False, "gaussian", "orthogonal")


class NoSlotError(Exception):
    """Every loaded adapter is in use: wait until one is not."""


class MixedModel:
    """`local` and up to `max_loras` adapters from weight stores; for one thread, except `loads` and `effect`.

    `probe` are the prompts by which it is seen whether an adapter changes anything (none: that is left open).
    """

    def __init__(self, local: LocalModel, *, max_loras: int, probe: Sequence[list[int]] = ()) -> None:
        self.local = local
        self._probe = probe
        self._plain: tuple[Reading, float] | None = None
        self._effects: dict[str, Effect] = {}
        self._base: Any = local.model
        self._peft: Any = None
        self.max_loras = max_loras
        # Least recently used first.
        self._loaded: OrderedDict[str, None] = OrderedDict()
        self._known: set[str] = set()

    @property
    def model(self) -> Any:
        """What computes: to be called with `adapters_of` the rows."""
        return self._base if self._peft is None else self._peft

    @property
    def loaded(self) -> tuple[str, ...]:
        """Digests of the loaded adapters, the least recently used first."""
        return tuple(self._loaded)

    def loads(self, digest: str) -> bool:
        """Whether the adapter has been loaded once, though it may have made room since."""
        return digest in self._known

    def effect(self, digest: str) -> Effect | None:
        """What a loaded adapter changes on the probe; None without a probe, or where it computes no numbers."""
        return self._effects.get(digest)

    def adapters_of(self, digests: Sequence[str | None]) -> list[str] | None:
        """PEFT's `adapter_names` for rows of these adapters; None where the model has none at all."""
        if self._peft is None:
            return None
        return [digest or NO_ADAPTER for digest in digests]

    def load(self, digest: str, store: WeightStore, *, in_use: Collection[str]) -> None:
        """Load the adapter unless it is loaded; the least recently used one not `in_use` makes room.

        Raises:
            LoadError: its weights are damaged, or cannot run in mixed batches on this model.
            NoSlotError: there is no room, and everything is in use.
        """
        if digest in self._loaded:
            self._loaded.move_to_end(digest)
            return
        spare = next((d for d in self._loaded if d not in in_use), None)
        full = len(self._loaded) >= self.max_loras
        if full and spare is None:
            raise NoSlotError
        files, folder = _verified(digest, store)
        try:
            self._attach(files, folder)
        # For weights that do not fit PEFT raises errors of many kinds.
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, OSError, WeightsError) as exc:
            self._detach(digest)
            raise LoadError(_short(exc, folder)) from exc
        self._loaded[digest] = None
        self._known.add(digest)
        if full and spare is not None:
            # PEFT warns where it deletes the adapter that it calls active.
            self._peft.set_adapter(digest, inference_mode=True)
            self._detach(spare)

    def _attach(self, files: AdapterFiles, folder: Path) -> None:
        _check_mixable(files, folder)
        digest, config = files.digest, peft_config(files)
        if self._probe and self._plain is None:
            self._read_base()
        if self._peft is None:
            self._peft = PeftModel(self._base, config, adapter_name=digest)
        else:
            self._peft.add_adapter(digest, config)
        load_weights(self._peft, folder, digest, self.local.device)
        # Run once, so that a failure shows here and not in a batch with other requests.
        if self._plain is None or digest in self._effects:
            self._read(digest, [[0]])
            return
        base, noise = self._plain
        read = self._read(digest, self._probe)
        with suppress(ProbeError):
            self._effects[digest] = Effect(difference(base, read), noise)

    def _read_base(self) -> None:
        together = self._read(None, self._probe)
        alone = [each for prompt in self._probe for each in self._read(None, [prompt])]
        with suppress(ProbeError):
            self._plain = together, difference(together, alone)

    def _read(self, digest: str | None, prompts: Sequence[list[int]]) -> Reading:
        """The likeliest tokens after each prompt, by an adapter or the base model, in one batch."""
        with torch.inference_mode():
            names = self.adapters_of([digest] * len(prompts))
            logits = prefill(self.model.eval(), prompts, room=1, adapters=names).logits.float()
            best = logits.log_softmax(-1).topk(min(LIKELIEST, logits.shape[-1]))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [dict(zip(tokens, values, strict=True)) for tokens, values in rows]

    def _detach(self, digest: str) -> None:
        self._loaded.pop(digest, None)
        if self._peft is None or digest not in self._peft.peft_config:
            return
        if len(self._peft.peft_config) > 1:
            self._peft.delete_adapter(digest)
        else:
            # Without any adapter there is nothing for PEFT to wrap.
            self._base = self._peft.unload()
            self._peft = None


def _verified(digest: str, store: WeightStore) -> tuple[AdapterFiles, Path]:
    try:
        return store.verify(digest), store.path(digest)
    except (TraitRouteError, OSError) as exc:
        raise LoadError("its stored weights are damaged or missing") from exc


def _check_mixable(files: AdapterFiles, folder: Path) -> None:
    """Check by its configuration, as PEFT reads it, that the adapter leaves rows of other adapters as they are.

    Raises:
        ValueError: it might not, or it is not of a kind that is served.
    """
    given: dict[str, Any] = json.loads((folder / "adapter_config.json").read_bytes())
    others = sorted(
        key for key, value in given.items() if key in _PLAIN and key not in _HARMLESS and value and value != _PLAIN[key]
    )
    # Some starts change the base model's own weights.
    if given.get("init_lora_weights", True) not in _HARMLESS_STARTS:
        others.append("init_lora_weights")
    if others:
        raise ValueError(f"it cannot share batches with other adapters ({', '.join(others)}): serve it with vLLM")
    if files.unservable is not None:
        raise ValueError(files.unservable)


def _short(error: Exception, folder: Path) -> str:
    lines = str(error).replace(str(folder), "its weights").split("\n")
    # Of torch's long list of mismatches the first is enough.
    text = next((line.strip() for line in lines[1:] if "mismatch" in line), lines[0])
    return (text or type(error).__name__)[:160]
