"""Engines that run adapters, and the servers that route requests to them."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..adapters import Adapter, WeightStore
from .engines import Engine, EngineRequest, EngineResult, TransformersEngine

EngineName = Literal["auto", "transformers", "vllm"]


def open_engine(name: EngineName, base: Path, weights: WeightStore, adapters: Sequence[Adapter]) -> Engine:
    """Open an engine over the base model in `base`, with room for `adapters`.

    `auto` means vLLM on a GPU and transformers on a CPU, where vLLM's LoRA kernels are slow.

    Raises:
        ImportError: the engine's package is missing; the message says how to install it.
        BaseModelError: `base` holds no loadable model.
    """
    if name == "vllm" or (name == "auto" and _gpu_with_vllm()):
        from .vllm.engine import VllmEngine

        return VllmEngine(base, weights, adapters)
    return TransformersEngine(base, weights)


def _gpu_with_vllm() -> bool:
    import torch

    return torch.cuda.is_available() and find_spec("vllm") is not None


__all__ = ["Engine", "EngineName", "EngineRequest", "EngineResult", "open_engine"]
