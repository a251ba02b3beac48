"""The adapters that wait to be measured: new ones, and replacements of those that serve meanwhile."""

from ...adapters import Adapter, AdapterState, Registry


def pending(registry: Registry) -> list[Adapter]:
    """Every adapter that a server can run and whose weights are not measured, replacements included."""
    waiting = [*registry.adapters(AdapterState.PENDING), *registry.replacements()]
    return [adapter for adapter in waiting if adapter.vllm_serves]


def is_replacement(registry: Registry, adapter: Adapter) -> bool:
    """Whether the adapter waits to replace another of its name."""
    waiting = registry.replacement(adapter.name)
    return waiting is not None and waiting.weights_digest == adapter.weights_digest


def served_name(registry: Registry, adapter: Adapter) -> str:
    """The model name by which servers answer with these weights."""
    if is_replacement(registry, adapter):
        return f"{adapter.name}@{adapter.version}"
    return adapter.name
