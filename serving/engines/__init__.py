"""Engines: the same `run(requests)` over transformers, over vLLM, and over a server that already runs."""

from .embedded import TransformersEngine
from .engine import Engine, EngineRequest, EngineResult

__all__ = ["Engine", "EngineRequest", "EngineResult", "TransformersEngine"]
