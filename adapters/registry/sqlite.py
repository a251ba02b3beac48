"""A registry in one SQLite file: how it is created, checked, opened, and seen to have been replaced."""

import errno
import os
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine

from ..errors import BusyError, DatabaseError, RegistryError
from . import schema
from .database import Polling, translated_errors

BUSY_S = 30.0
"""How long to wait for a locked file."""

_CLOCK_NS = 10**9
"""Two writes this far apart differ in their times of modification, on any file system."""


def create_file(path: Path) -> None:
    """Make an empty registry at `path`; if another process makes it first, leave that one.

    Raises:
        RegistryError: its folder cannot be made or written.
        DatabaseError: its disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with translated_errors(path):
            _draft_and_link(path)
    except OSError as exc:
        raise RegistryError(f"no registry can be made at {path}: {exc.strerror or exc}") from exc


def _draft_and_link(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".creating-", dir=path.parent) as scratch:
        draft = Path(scratch) / path.name
        engine = create_engine(URL.create("sqlite", database=str(draft)))
        with engine.connect() as connection:
            # Persistent: lets servers read while a profiling run writes.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        _migrate(path, engine)
        engine.dispose()
        # A link appears complete or not at all, and unlike a rename never replaces a file.
        with suppress(FileExistsError):
            os.link(draft, path)


class RegistryFile:
    """A registry in an open file; see `Backend`.

    SQLite goes on reading a file that was deleted, and never looks again at one that was opened as immutable, so
    `is_outdated` compares the file at the path `named` with what was opened.

    Raises:
        RegistryError: there is no such file, it is not a registry, or its schema is unknown.
        DatabaseError: it is damaged, locked, or may not be read.
    """

    def __init__(self, named: Path, *, read_only: bool) -> None:
        _check_kind(named)
        path = named.resolve()
        self._named = named
        self._pin = _pin(path) if read_only else None
        # Read before the file is opened, so that a change meanwhile is noticed.
        self._state = _State.read(named)
        self.engine = create_engine(
            URL.create("sqlite", database=path.as_uri(), query=_query(path, read_only=read_only)),
            connect_args={"timeout": BUSY_S},
            # A reader's open connection would keep the last writer from emptying the file -wal, and SQLite would
            # apply what is left there to a backup that is put in the file's place.
            poolclass=NullPool if read_only else None,
        )
        try:
            with translated_errors(path):
                _check_schema(path, self.engine, read_only=read_only)
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> tuple[int, int] | None:
        """What distinguishes this file from any other that comes to its path while this one is open."""
        return self._state and (self._state.device, self._state.inode)

    def is_outdated(self) -> bool:
        """Whether the file must be opened anew to see its present state."""
        state = self._state
        # A second write at the very time of the last one leaves no trace.
        return _State.read(self._named) != state or bool(state and state.immutable and state.recent)

    def changes(self, poll_s: float) -> Polling:
        """Return what waits until it is time to check the file."""
        return Polling(poll_s)

    @contextmanager
    def snapshot(self, connection: Connection) -> Iterator[None]:
        """A transaction that sees nothing written meanwhile.

        Raises:
            BusyError: the file was written meanwhile, and SQLite, which opened it as immutable, cannot tell.
        """
        with connection.begin():
            # The driver begins a transaction by itself only before it writes.
            connection.exec_driver_sql("BEGIN")
            try:
                yield
            finally:
                state = self._state
                if state and state.immutable and _State.read(self._named) != state:
                    raise BusyError(f"{self._named} was written while it was read: try again")

    def revising(self, connection: Connection) -> AbstractContextManager[None]:
        """Nothing: SQLite has one writer at a time."""
        return nullcontext()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
        if self._pin is not None:
            self._pin.close()


@dataclass(frozen=True)
class _State:
    """What is at a path, links followed."""

    device: int
    inode: int
    size: int
    written_ns: int
    immutable: bool
    recent: bool = field(compare=False)

    @classmethod
    def read(cls, path: Path) -> "_State | None":
        """None where there is no file."""
        try:
            status, immutable = path.stat(), _is_immutable(path.resolve())
        except OSError:
            return None
        recent = time.time_ns() - status.st_mtime_ns < _CLOCK_NS
        file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return cls(*file, immutable, recent=recent)


def _check_kind(path: Path) -> None:
    """Refuse what is no plain file before it is opened: opening a pipe would wait for its writer."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise RegistryError(f"no registry at {path}: check the path, or make one with `traitroute profile`") from exc
    except OSError as exc:
        raise DatabaseError(
            f"{path} cannot be read ({exc.strerror or exc}): check its permissions and its folder's"
        ) from exc
    if stat.S_ISDIR(status.st_mode):
        raise RegistryError(f"{path} is a folder: give the registry's file")
    if not stat.S_ISREG(status.st_mode):
        raise RegistryError(f"{path} is a pipe, a socket or a device: give the registry's file")
    if not status.st_size:
        # SQLite takes it for a database without tables.
        raise RegistryError(f"{path} is empty, not an SQLite file: give another, or restore a backup")


def _pin(path: Path) -> sqlite3.Connection:
    """A connection that reads and locks nothing: while it is open, no other file can get this one's inode number.

    It is made by SQLite, for closing a plain file handle would drop the locks of all connections of this process.
    """
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    with suppress(sqlite3.Error):
        return sqlite3.connect(uri, uri=True, check_same_thread=False)
    return sqlite3.connect(":memory:", check_same_thread=False)


def _query(path: Path, *, read_only: bool) -> dict[str, str]:
    if not read_only:
        return {"uri": "true", "mode": "rw"}
    query = {"uri": "true", "mode": "ro"}
    if not _may_write(path):
        # A file -shm made by a user who may not write the database would lock its owner out.
        query["readonly_shm"] = "1"
    if _is_immutable(path):
        query["immutable"] = "1"
    return query


def _may_write(file: Path) -> bool:
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def _is_immutable(file: Path) -> bool:
    """Whether the file can only be read as immutable: nobody writes it, and no file may be created beside it.

    In WAL mode SQLite creates two files beside a database even to read it. While there is a writer they exist, and a
    reader that uses them sees what is written.
    """
    if _may_write(file):
        return False
    wal, shared, journal = (file.with_name(f"{file.name}-{ending}") for ending in ("wal", "shm", "journal"))
    in_use = (wal.exists() and shared.exists()) or _holds_something(wal) or _holds_something(journal)
    return not in_use


def _holds_something(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _check_schema(path: Path, engine: Engine, *, read_only: bool) -> None:
    with engine.connect() as connection:
        number = schema.schema_of(connection, str(path))
    if not number:
        raise RegistryError(f"{path} is an SQLite file but not TraitRoute's: give another path")
    if number == schema.SCHEMA_VERSION:
        return
    if read_only:
        with schema.migrating(number):
            RegistryFile(path, read_only=False).close()
    else:
        _migrate(path, engine)


def _migrate(path: Path, engine: Engine) -> None:
    with engine.begin() as connection:
        # The first process migrates; others wait here and find it done.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        schema.migrate(connection, str(path))
