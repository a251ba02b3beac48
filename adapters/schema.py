"""The registry's tables, and how a file is made into a registry or recognised as one.

`traitroute_meta` has one row. Every future schema keeps its columns `application` and
`schema_version`, so that an old version can say that a file is too new for it.
"""

import os
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import (
    JSON,
    URL,
    Column,
    DateTime,
    Dialect,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    create_engine,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError

from .errors import RegistryError

APPLICATION = "traitroute"
SCHEMA_VERSION = 3
_BUSY_SECONDS = 30
_SQLITE_HEADER = b"SQLite format 3\0"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept as naive UTC because SQLite has no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC and drop the zone."""
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Say again that it is UTC."""
        return value and value.replace(tzinfo=UTC)


metadata = MetaData()

meta = Table(
    "traitroute_meta",
    metadata,
    Column("application", String(32), primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
)

adapters = Table(
    "adapters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("base_model", String, nullable=False),
    Column("base_digest", String(64), nullable=False),
    Column("weights_digest", String(64), nullable=False),
    Column("serving_id", Integer, nullable=False, index=True),
    Column("rank", Integer, nullable=False),
    Column("target_modules", JSON, nullable=False),
    Column("method", String(16), nullable=False, server_default="lora"),
    Column("state", String(16), nullable=False),
    Column("source_task", String(64)),
    Column("tags", JSON, nullable=False, server_default="[]"),
    Column("created_at", UtcDateTime, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("spec", JSON, nullable=False),
)

cells = Table(
    "cells",
    metadata,
    Column("key", String, primary_key=True),
    Column("adapter", String(64)),
    Column("task", String(64), nullable=False),
    Column("score", Float, nullable=False),
    Column("outcomes", LargeBinary, nullable=False),
)

profiles = Table(
    "profiles",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("summary", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)


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
        with engine.begin() as connection:
            # Persistent: lets servers read while a profiling run writes.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            metadata.create_all(connection)
            row = {"application": APPLICATION, "schema_version": SCHEMA_VERSION, "revision": 0}
            connection.execute(insert(meta).values(row))
        engine.dispose()
        # A link appears complete or not at all, and unlike a rename never replaces a file.
        with suppress(FileExistsError):
            os.link(draft, path)


def open_engine(path: Path, *, read_only: bool) -> Engine:
    """Connect to the registry at `path` after checking that it is one this version reads.

    Raises:
        RegistryError: there is no such file, it is not a registry, or its schema is another.
    """
    _check_header(path)
    engine = create_engine(
        URL.create("sqlite", database=path.as_uri(), query=_query(path, read_only)),
        connect_args={"timeout": _BUSY_SECONDS},
    )
    try:
        if _check_schema(path, engine) < SCHEMA_VERSION:
            _upgrade(path, engine, read_only=read_only)
    except DatabaseError as exc:
        engine.dispose()
        raise RegistryError(
            f"{path} cannot be read ({exc.orig}): check its permissions, or restore it from a backup"
        ) from exc
    except RegistryError:
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


def _check_schema(path: Path, engine: Engine) -> int:
    """Return the schema's version."""
    row = None
    if inspect(engine).has_table(meta.name):
        with engine.connect() as connection:
            row = connection.execute(select(meta.c.application, meta.c.schema_version)).first()
    if row is None or row.application != APPLICATION:
        raise RegistryError(f"{path} is an SQLite file but not TraitRoute's: give another path")
    if row.schema_version > SCHEMA_VERSION:
        raise RegistryError(
            f"{path} was written by a newer TraitRoute: schema {row.schema_version}, "
            f"this version reads {SCHEMA_VERSION}; upgrade"
        )
    return row.schema_version


_ADDED_COLUMNS = {
    2: "method VARCHAR(16) NOT NULL DEFAULT 'lora'",
    3: "tags JSON NOT NULL DEFAULT '[]'",
}
"""What each schema added to the adapters' table: all were LoRA before 2, and without tags before 3."""


def _upgrade(path: Path, engine: Engine, *, read_only: bool) -> None:
    """Bring an older file to this schema."""
    if read_only:
        open_engine(path, read_only=False).dispose()
        return
    for version, column in _ADDED_COLUMNS.items():
        with engine.begin() as connection:
            # Whoever raises the version first upgrades; another process waits here and finds it done.
            older = update(meta).where(meta.c.schema_version == version - 1)
            if connection.execute(older.values(schema_version=version)).rowcount:
                connection.exec_driver_sql(f"ALTER TABLE adapters ADD COLUMN {column}")
