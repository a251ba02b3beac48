"""TraitRoute: measure what every LoRA adapter really does, and route each request to the one it needs.

    from traitroute import Registry, Router

    with Registry.open("traitroute.db", read_only=True) as registry:
        decision = Router.from_registry(registry).route("2 + 2?")

Names are imported when they are first used: routing loads neither scikit-learn nor what profiling needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters import Registry
    from .profiling import Suite, load_suite, profile
    from .router import Router

__version__ = "0.1.0"
__all__ = ["Registry", "Router", "Suite", "load_suite", "profile"]

_DEFINED_IN = {
    "Registry": "adapters",
    "Router": "router",
    "Suite": "profiling",
    "load_suite": "profiling",
    "profile": "profiling",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_DEFINED_IN[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
