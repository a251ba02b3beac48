"""The options that vLLM is started with, offline and as a server, for reasons that were measured.

On vLLM's CPU build:

- without `lora_target_modules` it also wraps the logits processor, which costs 1.7 times the time and
  kills the engine on any request for prompt log-probabilities;
- in a batch with adapters it answers base-model requests from the *last* LoRA slot, for "no adapter" is
  index -1 (vllm-project/vllm#48421), so there must be a slot more than adapters, to stay empty;
- bfloat16 is several times slower than float32 on a processor without instructions for it, so the faster type is taken
  (`engines/local_model.py`), which is the one that adapters were trained and measured in;
- glibc gives every temporary back to the system unless set otherwise, which halves the speed of decoding.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...adapters import Adapter, WeightsError, WeightStore
from ...adapters.weights.adapter_files import stored_layers
from ...adapters.weights.base_shapes import BaseShapes
from ...adapters.weights.tensor_file import is_plain, shown
from ..engines.local_model import fastest_precision
from ..http import KEEP_ALIVE_S

SPARE_SLOTS = 3
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What is adapted on CPUs where no adapter says what to: see above why something must be named."""
HEAD, EXPERTS = "lm_head", "experts"
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values vLLM takes for the highest LoRA rank."""
_logger = logging.getLogger(__name__)

CPU_VARIABLES = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "VLLM_CPU_KVCACHE_SPACE": "2",
}
SERVER_VARIABLES = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_S)}
"""vLLM's own are 5 s."""
PRIVACY_VARIABLES = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def on_cpu() -> bool:
    """Whether this machine serves from its CPU."""
    import torch

    return not torch.cuda.is_available()


def engine_options(adapters: Sequence[Adapter], *, max_model_len: int, spare: int = 0) -> dict[str, Any]:
    """Engine arguments with room for `adapters`, and for `spare` more that come or replace others while it runs.

    An adapter that vLLM cannot serve does not keep it from starting: it is left out here with a warning, and refused
    where it is asked for.
    """
    adapters = [adapter for adapter in adapters if _fits(adapter)]
    highest = max((a.rank for a in adapters), default=16)
    rank = next(r for r in LORA_RANKS if r >= highest)
    cpu, count = on_cpu(), max(len(adapters) + spare, 1)
    options: dict[str, Any] = {
        "generation_config": "vllm",
        "max_model_len": max_model_len,
        "enable_lora": True,
        "max_lora_rank": rank,
        "max_loras": count + 1 if cpu else min(count, 8),
        "max_cpu_loras": count + 1 if cpu else count,
    }
    modules = {module for a in adapters for module in a.target_modules}
    if modules or cpu:
        options["lora_target_modules"] = sorted(modules or PROJECTIONS)
    if cpu:
        options |= {"enforce_eager": True, "dtype": fastest_precision()}
    return options


def as_stored(
    adapters: Iterable[Adapter], weights: WeightStore, base: Path, base_digest: str | None = None
) -> tuple[list[Adapter], dict[str, str]]:
    """The adapters with the rank and the modules of their stored tensors, and why others are left out, by their names.

    A registry's own figures may come from an older version, which took them from an unchecked configuration. Of the
    tensors only the headers are read here; the weights are checked as a whole when an adapter is loaded.
    """
    taken: list[Adapter] = []
    left_out: dict[str, str] = {}
    shapes = BaseShapes.of_folder(base)
    known = lora_modules(shapes.layers) | {HEAD}
    for adapter in adapters:
        try:
            layers = stored_layers(weights.path(adapter.weights_digest))
            modules = lora_modules(layers)
            if base_digest not in (None, adapter.base_digest):
                named = shown(adapter.base_model)
                raise WeightsError(f"it was trained for {named}, not for this base model as it is now")
            # vLLM does not start with target modules that are no layers.
            if (strange := sorted(modules - known)) and shapes.complete:
                raise WeightsError(f"it changes {strange[0]}, which is no layer of this base model")
            rank = max(layer.rank for layer in layers.values())
        except (WeightsError, OSError) as exc:
            left_out[adapter.name] = str(exc)
            continue
        stored = {"rank": rank, "target_modules": tuple(sorted(modules))}
        taken.append(adapter.model_copy(update=stored))
    return taken, left_out


def lora_modules(layers: Iterable[str]) -> set[str]:
    """What vLLM calls the modules of layers by their paths: the last part, but all experts of a mixture are one."""
    paths = [layer.split(".") for layer in layers]
    return {EXPERTS if EXPERTS in path else path[-1] for path in paths}


def _fits(adapter: Adapter) -> bool:
    """Whether vLLM's options can be made for the adapter, by what the registry says of it, which may be anything."""
    if adapter.rank > LORA_RANKS[-1]:
        why = f"its rank is {adapter.rank}, and vLLM serves up to {LORA_RANKS[-1]}"
    elif strange := [m for m in adapter.target_modules if "." in m or not is_plain(m)]:
        why = f"{shown(strange[0])} is no module's name"
    elif HEAD in adapter.target_modules and on_cpu():
        why = f"it changes {HEAD}, with which vLLM on CPUs ends at a request for prompt log-probabilities"
    else:
        return True
    _logger.warning("traitroute: %s is left out of vLLM's options: %s", adapter.name, why)
    return False
