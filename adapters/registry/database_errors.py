"""What a database's error means and what helps against it, by the codes of SQLite and PostgreSQL: one table for all that read one."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError

from ..errors import BusyError, DatabaseError, RegistryError, TraitRouteError


@dataclass(frozen=True)
class _Fault:
    """What is wrong, the cure, and the error that says so."""

    what: str
    cure: str
    kind: type[TraitRouteError] = DatabaseError


_LOCKED = _Fault("it is locked by another process", "try again", BusyError)
_FULL = _Fault("its disk is full", "free some space, then try again")
_DISK = _Fault(
    "its disk cannot be read or written",
    "see whether it is full or over a quota, and the system's log",
)
_DAMAGED = _Fault("it is damaged", "restore it from a backup")
_FOREIGN = _Fault("it is not an SQLite file", "give another, or restore a backup", RegistryError)
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
_STRANGER = _Fault("its server does not let us in", "check user and password (as PGPASSWORD, or in ~/.pgpass)")
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
_UNKNOWN = _Fault("its database reports an error", "see what it says")

_FAULTS = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_FULL": _FULL,
    # The file -shm could not grow.
    "SQLITE_IOERR_SHMSIZE": _FULL,
    "SQLITE_IOERR": _DISK,
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _FOREIGN,
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
    "28": _STRANGER,
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

# Where a server lets nobody in, libpq hands on its words alone: without a code, and in English unless it was set up otherwise.
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
def in_our_words(place: object) -> Iterator[None]:
    """Say in our words what the database at `place` says.

    Raises:
        DatabaseError: something happened within; its cause is SQLAlchemy's error.
        RegistryError: it is no database.
    """
    try:
        yield
    except (DBAPIError, TimeoutError) as exc:
        fault = _fault(exc)
        words = " ".join(str(getattr(exc, "orig", exc)).split())
        raise fault.kind(f"{place}: {fault.what} ({words}): {fault.cure}") from exc


def _fault(error: DBAPIError | TimeoutError) -> _Fault:
    if isinstance(error, TimeoutError):
        return _CROWDED
    cause = error.orig
    if name := getattr(cause, "sqlite_errorname", None):
        # SQLITE_BUSY_SNAPSHOT is a kind of SQLITE_BUSY.
        return _FAULTS.get(name) or _FAULTS.get("_".join(name.split("_")[:2]), _UNKNOWN)
    if isinstance(cause, sqlite3.OperationalError):
        # Python's driver itself: text that is none.
        return _DAMAGED
    if state := getattr(cause, "sqlstate", None) or _state_by_words(str(cause)):
        return _FAULTS.get(state) or _FAULTS.get(state[:2], _UNKNOWN)
    return _AWAY if isinstance(error, OperationalError) else _UNKNOWN


def _state_by_words(words: str) -> str | None:
    return next((state for parts, state in _REFUSALS if all(p in words for p in parts)), None)
