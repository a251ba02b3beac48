"""A registry's database: its transactions, its revision, and what its errors mean.

`sqlite` and `postgresql` are its two backends; what is special to one of them is there.
"""

import asyncio
import getpass
import platform
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError

from ..errors import BusyError, DatabaseError, RegistryError, TraitRouteError
from . import schema
from .location import Location


class Changes(Protocol):
    """Waits, on the event loop, until a registry may have changed."""

    async def wait(self) -> None:
        """Return when the registry may have changed, or cannot be reached."""
        ...

    async def close(self) -> None:
        """Stop waiting for good."""
        ...


class Polling:
    """Waits `every_s` seconds; for a file, which is then checked in microseconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s

    async def wait(self) -> None:
        """Return when it is time to check."""
        await asyncio.sleep(self._every_s)

    async def close(self) -> None:
        """Hold nothing."""


class Backend(Protocol):
    """An SQLite file or a PostgreSQL database: what they do differently."""

    engine: Engine

    @property
    def identity(self) -> tuple[int, int] | None:
        """What distinguishes a file from another that comes to its path; None for a database on a server."""
        ...

    def is_outdated(self) -> bool:
        """Whether the registry must be opened anew to see its present state."""
        ...

    def changes(self, poll_s: float) -> Changes:
        """Return what waits for changes."""
        ...

    def snapshot(self, connection: Connection) -> AbstractContextManager[None]:
        """A transaction that sees nothing written meanwhile."""
        ...

    def revising(self, connection: Connection) -> AbstractContextManager[None]:
        """What surrounds a change of the revision."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class Database:
    """Tables on SQLite or PostgreSQL; each part of the registry adds the methods of its tables.

    `author` is recorded as the author of each change. Whoever writes adapters or profiles first raises the revision,
    and so, on any database, queues for that row: what is then read stays true until the commit.
    """

    def __init__(self, backend: Backend, location: Location, *, read_only: bool, author: str | None = None) -> None:
        """Use `Registry.create` or `Registry.open` instead, which check what is there."""
        self.location = location
        self.author = author or _user()
        self._backend = backend
        self._read_only = read_only
        self._frozen = threading.local()

    @property
    def path(self) -> Path:
        """The registry's file.

        Raises:
            RegistryError: it is on a server.
        """
        if self.location.path is None:
            raise RegistryError(f"{self.location} is no file: this needs a registry in a file")
        return self.location.path

    @property
    def file(self) -> tuple[int, int] | None:
        """What distinguishes the registry's file from another at the same path; None for one on a server."""
        return self._backend.identity

    def is_outdated(self) -> bool:
        """Whether the registry must be opened anew: another file came to its path, or SQLite would not look again."""
        return self._backend.is_outdated()

    def close(self) -> None:
        """Close every connection."""
        self._backend.close()

    def revision(self) -> int:
        """Return a number that changes with every write to adapters or profiles; cheap to poll."""
        with self._transaction() as connection:
            return connection.execute(select(schema.meta.c.revision)).scalar_one()

    def changes(self, *, poll_s: float) -> Changes:
        """Return what waits for changes of this registry; a file is checked every `poll_s` seconds."""
        return self._backend.changes(poll_s)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let everything that this thread reads inside be of one revision, whatever is written meanwhile."""
        if getattr(self._frozen, "connection", None) is not None:
            yield
            return
        with (
            translated_errors(self.location),
            self._backend.engine.connect() as connection,
            self._backend.snapshot(connection),
        ):
            self._frozen.connection = connection
            try:
                yield
            finally:
                self._frozen.connection = None

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if (frozen := getattr(self._frozen, "connection", None)) is not None:
            yield frozen
            return
        with translated_errors(self.location), self._backend.engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if self._read_only:
            raise RegistryError(f"{self.location} was opened read-only: open it for writing")
        with self._transaction() as connection:
            yield connection

    @contextmanager
    def _revising(self) -> Iterator[Connection]:
        with self._writing() as connection, self._backend.revising(connection):
            connection.execute(update(schema.meta).values(revision=schema.meta.c.revision + 1))
            yield connection

    def _authorship(self) -> dict[str, Any]:
        """The columns that record who changed a row, and when."""
        return {"changed_at": datetime.now(UTC), "changed_by": self.author}


def put(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    """Insert `row`, in place of an earlier one with its primary key, whoever else does so at the same time."""
    values = _insert(connection, table).values(row)
    connection.execute(values.on_conflict_do_update(index_elements=table.primary_key, set_=row))


def add(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Insert `row` unless there is one with its primary key, whoever else does so at the same time; whether it was."""
    values = _insert(connection, table).values(row)
    return connection.execute(values.on_conflict_do_nothing(index_elements=table.primary_key)).rowcount > 0


def _insert(connection: Connection, table: Table) -> "postgresql.Insert | sqlite.Insert":
    return (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (OSError, KeyError, ImportError):
        # A container's user may have no name.
        return platform.node()


@dataclass(frozen=True)
class _Fault:
    """What is wrong with a database, the cure, and the class of the error."""

    what: str
    cure: str
    kind: type[TraitRouteError] = DatabaseError


_LOCKED = _Fault("it is locked by another process", "try again", BusyError)
_FULL = _Fault("its disk is full", "free some space, then try again")
_DISK = _Fault("its disk cannot be read or written", "see whether it is full or over a quota, and the system's log")
_DAMAGED = _Fault("it is damaged", "restore it from a backup")
_NOT_SQLITE = _Fault("it is not an SQLite file", "give another, or restore a backup", RegistryError)
_READ_ONLY = _Fault("it may not be written from here", "use it as a user who may write to the file and its folder")
_UNFINISHED = _Fault(
    "a write to it was cut short, and what may only read cannot mend that",
    "open it once as a user who may write to the file and its folder",
)
_REPLACED = _Fault("another file came to its path", "try again", BusyError)
_CLOSED = _Fault(
    "it cannot be opened",
    "check the permissions of the file, of its folder, and of the files -wal and -shm beside it (what may only "
    "read needs both or neither), and the limit of open files",
)
_AWAY = _Fault("its server cannot be reached", "check that the server runs, then try again", BusyError)
_REJECTED = _Fault("its server does not let us in", "check user and password (as PGPASSWORD, or in ~/.pgpass)")
_ABSENT = _Fault("its server has no such database", "make it (createdb), or give another")
_CROWDED = _Fault("too many use it at once", "try again, or allow more connections", BusyError)
_REFUSED = _Fault("the user lacks a right there", "GRANT it, or use another user")
_STANDBY = _Fault(
    "it may not be written",
    "give the primary server, not a standby (?target_session_attrs=read-write), and a user who may write",
)
_SLOW = _Fault("its server gave up waiting", "try again", BusyError)
_CHANGED = _Fault("its tables are not as they were made", "restore a backup")
_OPTION = _Fault("its URL has an option that is not known", "mend what follows its `?`")
_UNKNOWN = _Fault("its database reports an error", "see its message")

_FAULTS = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_FULL": _FULL,
    # The file -shm could not grow.
    "SQLITE_IOERR_SHMSIZE": _FULL,
    "SQLITE_IOERR": _DISK,
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _NOT_SQLITE,
    "SQLITE_READONLY": _READ_ONLY,
    "SQLITE_READONLY_RECOVERY": _UNFINISHED,
    "SQLITE_READONLY_ROLLBACK": _UNFINISHED,
    "SQLITE_READONLY_DBMOVED": _REPLACED,
    "SQLITE_PERM": _CLOSED,
    "SQLITE_AUTH": _CLOSED,
    "SQLITE_CANTOPEN": _CLOSED,
    "SQLITE_ERROR": _CHANGED,
    "08": _AWAY,
    "25006": _STANDBY,
    "28": _REJECTED,
    "3D": _ABSENT,
    "3F": _CHANGED,
    "40": _LOCKED,
    "42": _CHANGED,
    "42501": _REFUSED,
    "53": _CROWDED,
    "53100": _FULL,
    "55P03": _LOCKED,
    "57": _AWAY,
    "57014": _SLOW,
    "58": _DISK,
    "58P01": _DAMAGED,
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
    "option": _OPTION,
}

# Where a server refuses a connection, libpq reports only its text: no code, and in English unless configured otherwise.
_REFUSALS = (
    (("authentication failed",), "28"),
    (("no password supplied",), "28"),
    (("pg_hba.conf",), "28"),
    (('role "', "does not exist"), "28"),
    (('database "', "does not exist"), "3D"),
    (("permission denied for database",), "42501"),
    (("too many",), "53"),
    (("remaining connection slots",), "53"),
    (("invalid connection option",), "option"),
    (("unrecognized configuration parameter",), "option"),
)


@contextmanager
def translated_errors(place: object) -> Iterator[None]:
    """Translate the errors of the database at `place` into ours, with what is wrong and the cure.

    Raises:
        DatabaseError: the database reported an error; its cause is SQLAlchemy's.
        RegistryError: it is no database.
    """
    try:
        yield
    except (DBAPIError, TimeoutError) as exc:
        fault = _fault(exc)
        text = " ".join(str(getattr(exc, "orig", exc)).split())
        raise fault.kind(f"{place}: {fault.what} ({text}): {fault.cure}") from exc


def _fault(error: DBAPIError | TimeoutError) -> _Fault:
    if isinstance(error, TimeoutError):
        return _CROWDED
    cause = error.orig
    if name := getattr(cause, "sqlite_errorname", None):
        # SQLITE_BUSY_SNAPSHOT is a kind of SQLITE_BUSY.
        return _FAULTS.get(name) or _FAULTS.get("_".join(name.split("_")[:2]), _UNKNOWN)
    if isinstance(cause, sqlite3.OperationalError):
        # Raised by Python's driver itself, for text that cannot be decoded.
        return _DAMAGED
    if state := getattr(cause, "sqlstate", None) or _state_by_text(str(cause)):
        return _FAULTS.get(state) or _FAULTS.get(state[:2], _UNKNOWN)
    return _AWAY if isinstance(error, OperationalError) else _UNKNOWN


def _state_by_text(text: str) -> str | None:
    return next((state for parts, state in _REFUSALS if all(p in text for p in parts)), None)
