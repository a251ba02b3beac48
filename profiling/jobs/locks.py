"""Locks between worker processes, which the system releases when their holder dies, however it dies.

Beside a registry in a file they are the kernel's locks on files. With PostgreSQL they are advisory locks, which end
with their connection. So no clock decides whether a worker lives.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from ...adapters.registry.database import translated_errors
from ...adapters.registry.location import Location

_SHARED_FILES = 512
"""Locks waited for share so many files: two of one file wait for each other, and do no harm."""


class Held(Protocol):
    """A lock that is ours until `release`."""

    def renew(self) -> bool:
        """Whether it is ours, after trying to get it again where the connection was lost."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


class Locks(Protocol):
    """Names that one process at a time holds; `grace_s` is how long a live one may need to get its own back."""

    grace_s: float

    def hold(self, name: str) -> Held | None:
        """Take a lock for long; None where another has it."""
        ...

    def wait(self, name: str) -> AbstractContextManager[None]:
        """A context in which the lock is ours, once nobody else has it."""
        ...


def open_locks(location: Location) -> Locks:
    """The locks of all workers of the registry at `location`."""
    if location.path is not None:
        path = location.path.resolve()
        return FileLocks(path.with_name(f"{path.stem}.locks"))
    return AdvisoryLocks(location)


class FileLocks:
    """Locks on files in `folder`: for processes of one machine."""

    grace_s = 0.0

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def hold(self, name: str) -> "Held | None":
        """Take a lock for long; None where another has it."""
        lock = FileLock(self._folder / f"{_digest(name).hex()}.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return _HeldFile(lock)

    @contextmanager
    def wait(self, name: str) -> Iterator[None]:
        """A context in which the lock is ours, once nobody else has it."""
        number = int.from_bytes(_digest(name)) % _SHARED_FILES
        with FileLock(self._folder / f"shared-{number}.lock", thread_local=False):
            yield


class _HeldFile:
    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def renew(self) -> bool:
        return True

    def release(self) -> None:
        # The file stays: whoever has opened it already would hold a lock on it beside that of another on a new one.
        self._lock.release()


class AdvisoryLocks:
    """Advisory locks of a PostgreSQL database, each on a connection of its own."""

    grace_s = 10.0

    def __init__(self, location: Location) -> None:
        assert location.url is not None
        self._location = location
        # A connection whose client is gone without a word is ended by the server within about 20 s.
        alive = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=2"
        self._engine = create_engine(
            location.url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"options": alive, "connect_timeout": 5},
        )

    def hold(self, name: str) -> "Held | None":
        """Take a lock for long; None where another has it."""
        held = _HeldKey(self._engine, _key(name))
        return held if held.renew() else None

    @contextmanager
    def wait(self, name: str) -> Iterator[None]:
        """A context in which the lock is ours, once nobody else has it."""
        with translated_errors(self._location):
            connection = self._engine.connect()
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key(name)})
        try:
            yield
        finally:
            with suppress(DBAPIError):
                connection.close()


class _HeldKey:
    def __init__(self, engine: Engine, key: int) -> None:
        self._engine, self._key = engine, key
        self._connection: Connection | None = None
        self._guard = threading.Lock()

    def renew(self) -> bool:
        with self._guard:
            return self._alive() or self._take()

    def release(self) -> None:
        with self._guard:
            self._drop()

    def _alive(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:
            self._drop()
            return False
        return True

    def _take(self) -> bool:
        query = text("SELECT pg_try_advisory_lock(:key)")
        with suppress(DBAPIError):
            self._connection = connection = self._engine.connect()
            if connection.execute(query, {"key": self._key}).scalar_one():
                return True
        self._drop()
        return False

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(DBAPIError):
                self._connection.close()
            self._connection = None


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _key(name: str) -> int:
    return int.from_bytes(_digest(f"traitroute:{name}")[:8], signed=True)
