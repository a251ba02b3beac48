"""A registry in one SQLite file: how it is made, recognised and connected to."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.exc import DBAPIError

from .errors import DatabaseError, RegistryError, TraitRouteError
from .schema import SCHEMA_VERSION
from .upgrade import schema_of, upgrade

_BUSY_SECONDS = 30
_SQLITE_HEADER = b"SQLite format 3\0"


def create_file(path: Path) -> None:
    """Make an empty registry at `path`; if another process makes it first, leave that one.

    Raises:
        RegistryError: its folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        URL.create("sqlite", database=path.as_uri(), query=_query(path, read_only)),
        connect_args={"timeout": _BUSY_SECONDS},
    )
    try:
        _check_schema(path, engine, read_only=read_only)
    except DBAPIError as exc:
        engine.dispose()
        raise DatabaseError(
            f"{path} cannot be read ({exc.orig}): check its permissions, or restore it from a backup"
        ) from exc
    except TraitRouteError:
        engine.dispose()
        raise
    return engine


def _query(path: Path, read_only: bool) -> dict[str, str]:
    query = {"uri": "true", "mode": "ro" if read_only else "rw"}
    # SQLite makes two files beside a WAL database even to read it; where it cannot, and nobody is
    # writing, the file is read as one that never changes.
    wal = path.with_name(f"{path.name}-wal")
    if read_only and not wal.exists() and not os.access(path.parent, os.W_OK):
        query["immutable"] = "1"
    return query


def _check_header(path: Path) -> None:
    if not path.exists():
        raise RegistryError(
            f"no registry at {path}: check the path, or make one with `traitroute profile`"
        )
    if path.is_dir():
        raise RegistryError(f"{path} is a folder: give the registry's file")
    with path.open("rb") as file:
        if file.read(len(_SQLITE_HEADER)) != _SQLITE_HEADER:
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
