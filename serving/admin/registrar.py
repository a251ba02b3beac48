"""Changes the registry that a server follows; the server itself reads it only. Blocking, for threads."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...adapters import (
    Adapter,
    AdapterState,
    AllowedSources,
    ConflictError,
    Importer,
    Location,
    Registry,
    RegistryError,
)
from ..http.errors import RefusedError
from ..http.paging import Page
from .models import AdapterChange, AdapterList, AdapterRecord, NewAdapter, NewWeights

_AUTHOR = "the admin API"


class Registrar:
    """Opens the registry at `where()` anew for each change: they are rare, and it may have moved.

    Each change takes `match`, the tag of the adapter as the caller read it, and refuses where it was changed since.
    """

    def __init__(self, where: Callable[[], Location], allowed: AllowedSources) -> None:
        self._where = where
        self._allowed = allowed

    def adapters(self, page: Page) -> AdapterList:
        """Describe a page of the adapters."""
        with self._opened(read_only=True) as registry, registry.frozen():
            names = sorted(registry.adapter_names())
            rows, following = page.of_sorted(names)
            waiting = {each.name: each for each in registry.replacements()}
            found = registry.adapters(names=names[rows])
            told = tuple(_described(each, waiting.get(each.name)) for each in found)
            return AdapterList(data=told, next=following)

    def adapter(self, name: str) -> AdapterRecord:
        """Describe one adapter."""
        with self._opened(read_only=True) as registry:
            return _described(registry.adapter(name), registry.replacement(name))

    def add(self, new: NewAdapter) -> tuple[AdapterRecord, bool]:
        """Add an adapter and describe it; false where it was there already, with the same weights."""
        with self._opened() as registry:
            arrival = Importer(registry, self._allowed).add(**dict(new))
            return _described(arrival.adapter, registry.replacement(new.name)), not arrival.known

    def replace(self, name: str, new: NewWeights, match: str | None) -> AdapterRecord:
        """Let new weights wait to take the name over, and describe the adapter that they will replace."""
        with self._opened() as registry:
            _expected(registry, name, match)
            arrival = Importer(registry, self._allowed).replace(name, **dict(new))
            return _described(registry.adapter(name), arrival.adapter)

    def withdraw(self, name: str) -> AdapterRecord:
        """Give up the weights that wait to replace an adapter's."""
        with self._opened() as registry:
            registry.withdraw_replacement(name)
            return _described(registry.adapter(name), None)

    def change(self, name: str, change: AdapterChange, match: str | None) -> AdapterRecord:
        """Change an adapter's tags or state, and describe it as it then is."""
        with self._opened() as registry:
            adapter = _expected(registry, name, match)
            if change.tags is not None:
                adapter = registry.set_tags(name, change.tags, expected=adapter)
            if change.state == "enabled":
                adapter = registry.enable(name, expected=adapter)
            elif change.state == "disabled":
                state, note = AdapterState.DISABLED, change.note
                adapter = registry.set_state(name, state, note=note, expected=adapter)
            return _described(adapter, registry.replacement(name))

    def remove(self, name: str, match: str | None) -> AdapterRecord:
        """Forget an adapter, and describe it as it was."""
        with self._opened() as registry:
            adapter = _expected(registry, name, match)
            return _described(registry.remove_adapter(name, expected=adapter), None)

    @contextmanager
    def _opened(self, *, read_only: bool = False) -> Iterator[Registry]:
        try:
            registry = Registry.open(self._where(), read_only=read_only, author=_AUTHOR)
        except RegistryError as exc:
            raise RefusedError(f"the registry cannot be opened: {exc}", status=503) from exc
        with registry:
            yield registry


def _expected(registry: Registry, name: str, match: str | None) -> Adapter:
    adapter = registry.adapter(name)
    if match is not None and match.strip('"') not in ("*", _tag(adapter)):
        raise ConflictError(
            f"{name!r} is not as you read it (If-Match): somebody changed it since; read it again and repeat the change"
        )
    return adapter


def _described(adapter: Adapter, replacement: Adapter | None) -> AdapterRecord:
    return AdapterRecord(**dict(adapter), tag=_tag(adapter), replacement=replacement)


def _tag(adapter: Adapter) -> str:
    return hashlib.sha256(adapter.model_dump_json().encode()).hexdigest()[:16]
