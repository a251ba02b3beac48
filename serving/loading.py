"""What puts adapters into the engine behind the app."""

from typing import Protocol

from ..adapters import RunError


class LoadError(RunError):
    """The server cannot load an adapter."""


class AdapterLoader(Protocol):
    """Whatever puts adapters into the engine behind the app."""

    async def ensure(self, name: str) -> None:
        """Return once the adapter can be served by its name.

        Raises:
            LoadError: it cannot be loaded.
        """
        ...


class NoLoader:
    """The loader of a server that has not finished starting."""

    async def ensure(self, name: str) -> None:
        """Refuse."""
        raise LoadError(f"{name!r} cannot be loaded before the server has started")


async def load(loader: AdapterLoader, name: str) -> None:
    """Return once the adapter can be served by its name.

    Raises:
        LoadError: it cannot be loaded, whatever the loader itself raised.
    """
    try:
        await loader.ensure(name)
    except LoadError:
        raise
    except Exception as exc:
        # The engine behind a loader fails in ways of its own; its message may hold paths.
        raise LoadError(f"{name!r} could not be loaded: {type(exc).__name__}") from exc
