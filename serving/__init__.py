"""Engines that run adapters, and the servers that route requests to them."""

from .engines import Engine, EngineRequest, EngineResult, open_engine

__all__ = ["Engine", "EngineRequest", "EngineResult", "open_engine"]
