"""What lies in a weight store and nothing names any more: found, marked, and freed when no server can still hold it.

Nobody knows which weights a server holds, and one that evicts an adapter loads it again from the store. So weights
are first marked, and freed only by a later run, after a time in which every server has seen that they are gone.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .registry.registry import Registry
from .weights.store import WeightStore

GRACE = timedelta(hours=24)


@dataclass(frozen=True)
class Leftover:
    """Weights, or a scratch folder of a process that was killed, of `size` bytes, which nothing names `since` some time."""

    folder: Path
    size: int
    since: datetime
    freed: bool = False


def clean(registry: Registry, *, grace: timedelta = GRACE, free: bool = False) -> list[Leftover]:
    """Find and mark what nothing in `registry` names; with `free`, remove what has been so for `grace`.

    Adapters, pending replacements and all versions of the profile name weights. The store must be this registry's
    alone: what another one names is not known here.

    Raises:
        DatabaseError: the registry cannot be read; nothing is removed then.
        OSError: the store cannot be written.
    """
    store = registry.weights
    if free:
        store.recover()
    named = registry.named_weights()
    return [*_weights(store, named, grace, free=free), *_scratch(store, grace, free=free)]


def _weights(store: WeightStore, named: frozenset[str], grace: timedelta, *, free: bool) -> Iterator[Leftover]:
    for digest in store.digests():
        if digest in named:
            store.unmark(digest)
            continue
        since, size = store.mark(digest), _size(store.root / digest)
        freed = free and _is_over(since, grace) and store.free(digest)
        yield Leftover(store.root / digest, size, since, freed)


def _scratch(store: WeightStore, grace: timedelta, *, free: bool) -> Iterator[Leftover]:
    """A folder that nothing was written to for so long belongs to nobody who still copies."""
    for folder in store.scratch():
        # One in use may go at any moment.
        with suppress(FileNotFoundError):
            newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            since, size = datetime.fromtimestamp(newest, UTC), _size(folder)
            if freed := free and _is_over(since, grace):
                shutil.rmtree(folder)
            yield Leftover(folder, size, since, freed)


def _is_over(since: datetime, grace: timedelta) -> bool:
    return since + grace <= datetime.now(UTC)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
