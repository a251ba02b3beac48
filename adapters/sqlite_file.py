"""A registry in one SQLite file: how it is made, recognised, connected to, and told from what it was."""

import os
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL, Engine, NullPool, create_engine

from .errors import DatabaseError, RegistryError, TraitRouteError
from .faults import in_our_words
from .schema import SCHEMA_VERSION
from .upgrade import schema_of, upgrade

BUSY_S = 30.0
"""So long a locked file is waited for."""

_SQLITE_HEADER = b"SQLite format 3\0"
_HEADER_BYTES, _WRITE_FORMAT, _WAL = 100, 18, b"\2"
_CLOCK_NS = 10**9
"""Times at which files are written differ by this at the latest, on any file system."""


def create_file(path: Path) -> None:
    """Make an empty registry at `path`; if another process makes it first, leave that one.

    Raises:
        RegistryError: its folder cannot be made or written.
        DatabaseError: its disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_our_words(path):
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
        _upgrade(path, engine)
        engine.dispose()
        # A link appears complete or not at all, and unlike a rename never replaces a file.
        with suppress(FileExistsError):
            os.link(draft, path)


def open_file(path: Path, *, read_only: bool) -> Engine:
    """Connect to the registry at `path` after checking that it is one this version reads.

    Raises:
        RegistryError: there is no such file, it is not a registry, or its schema is newer.
        DatabaseError: it is damaged, locked, or may not be read.
    """
    _check_header(path)
    engine = create_engine(
        URL.create("sqlite", database=path.as_uri(), query=_query(path, read_only=read_only)),
        connect_args={"timeout": BUSY_S},
        # A reader's connection that stays would keep the last writer from emptying the file -wal, and what is left in
        # that SQLite would apply to a backup that is put in the file's place.
        poolclass=NullPool if read_only else None,
    )
    try:
        with in_our_words(path):
            _check_schema(path, engine, read_only=read_only)
    except TraitRouteError:
        engine.dispose()
        raise
    return engine


def _query(path: Path, *, read_only: bool) -> dict[str, str]:
    if not read_only:
        return {"uri": "true", "mode": "rw"}
    query = {"uri": "true", "mode": "ro"}
    if not _may_write(path):
        # Made by who may not write the database itself, the file -shm would keep its owner out.
        query["readonly_shm"] = "1"
    if _is_immutable(path):
        query["immutable"] = "1"
    return query


def _may_write(file: Path) -> bool:
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


@dataclass(frozen=True)
class FileState:
    """What is at a path: where that is no longer as it was, only a new connection reads what is there now.

    SQLite goes on reading a file that was deleted, what it holds of one that was copied over, and one that it was
    told is `immutable`. A file that was `just_written` may have been written again at the same time.
    """

    device: int
    inode: int
    size: int
    written_ns: int
    immutable: bool
    just_written: bool = field(compare=False)

    @classmethod
    def read(cls, path: Path) -> "FileState | None":
        """The file at `path`, links followed; None where there is none."""
        try:
            found, immutable = path.stat(), _is_immutable(path)
        except OSError:
            return None
        recent = time.time_ns() - found.st_mtime_ns < _CLOCK_NS
        file = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return cls(*file, immutable, just_written=recent)


def _is_immutable(path: Path) -> bool:
    """Whether the file can only be read as one that nobody writes: there is no writer, and nothing may be made beside it.

    In WAL mode SQLite makes two files beside a database even to read it. While there is a writer they are there, and who
    reads with them sees what it writes.
    """
    file = path.resolve()
    if _may_write(file):
        return False
    wal, shared = (file.with_name(f"{file.name}-{ending}") for ending in ("wal", "shm"))
    if wal.exists() and (shared.exists() or wal.stat().st_size):
        return False
    return _header(file)[_WRITE_FORMAT : _WRITE_FORMAT + 1] == _WAL


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def _check_header(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise RegistryError(f"{path} is a folder: give the registry's file")
        if not stat.S_ISREG(mode):
            # Opening a pipe would wait for who writes to it.
            raise RegistryError(f"{path} is a pipe, a socket or a device: give the registry's file")
        header = _header(path)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise RegistryError(
            f"no registry at {path}: check the path, or make one with `traitroute profile`"
        ) from exc
    except OSError as exc:
        raise DatabaseError(
            f"{path} cannot be read ({exc.strerror or exc}): check its permissions and its folder's"
        ) from exc
    if not header.startswith(_SQLITE_HEADER):
        raise RegistryError(f"{path} is not a registry: it is not an SQLite file; give another")


def _check_schema(path: Path, engine: Engine, *, read_only: bool) -> None:
    with engine.connect() as connection:
        schema = schema_of(connection, str(path))
    if not schema:
        raise RegistryError(f"{path} is an SQLite file but not TraitRoute's: give another path")
    if schema == SCHEMA_VERSION:
        return
    if read_only:
        open_file(path, read_only=False).dispose()
    else:
        _upgrade(path, engine)


def _upgrade(path: Path, engine: Engine) -> None:
    with engine.begin() as connection:
        # Whoever comes first upgrades; another process waits here and finds it done.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        upgrade(connection, str(path))
