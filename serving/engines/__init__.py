"""Engines: the same `run(requests)` over transformers, over vLLM, and over a server that runs already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ...adapters import Adapter, WeightStore
from .embedded import TransformersEngine
from .engine import Engine, EngineRequest, EngineResult

EngineName = Literal["auto", "transformers", "vllm"]


def open_engine(name: EngineName, base: Path, weights: WeightStore, adapters: Sequence[Adapter]) -> Engine:
    """Open an engine over `base`, with room for `adapters`.

    `auto` means vLLM on a GPU and transformers on a CPU, where vLLM's LoRA kernels are slow.

    Raises:
        ImportError: the engine's package is missing; the message says how to install it.
        BaseModelError: `base` holds no loadable model.
    """
    if name == "auto":
        name = "vllm" if _gpu_with_vllm() else "transformers"
    if name == "vllm":
        from ..vllm.engine import VllmEngine

        return VllmEngine(base, weights, adapters)
    return TransformersEngine(base, weights)


def _gpu_with_vllm() -> bool:
    from importlib.util import find_spec

    import torch

    return torch.cuda.is_available() and find_spec("vllm") is not None


__all__ = [
    "Engine",
    "EngineName",
    "EngineRequest",
    "EngineResult",
    "TransformersEngine",
    "open_engine",
]
