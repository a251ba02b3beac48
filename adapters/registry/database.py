"""A registry's database: its transactions, its revision, and its errors in our words."""

import getpass
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import RegistryError
from . import tables as schema
from .changes import Changes, Listening, Polling
from .database_errors import in_our_words
from .location import Location
from .postgresql import CONNECTING, announce
from .sqlite import RegistryFile

_LONGEST_WAIT = text("SET LOCAL lock_timeout = '30s'")


class Database:
    """Tables on SQLite or PostgreSQL; each part of the registry adds the methods of its tables.

    `author` is who changes what is changed here, kept with each changed adapter. Nothing in the parts is one
    database's own SQL; what is lies in `sqlite_file` and `postgresql`. Writers of adapters and profiles first raise
    the revision, which on any database makes them queue for that row, so what they then read stays true until they
    commit.
    """

    def __init__(self, engine: Engine, location: Location, *, read_only: bool, author: str | None = None) -> None:
        """Use `Registry.create` or `Registry.open` instead, which check what is there."""
        self.location = location
        self.author = author or _user()
        self._engine = engine
        self._read_only = read_only
        self._frozen = threading.local()
        self._file: RegistryFile | None = None

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
        """What tells the registry's file from others, also at the same path; None for one on a server."""
        return self._file and self._file.identity

    def is_outdated(self) -> bool:
        """Whether it must be opened anew to be read as it is: another file came to its path, or SQLite would not look again."""
        return self._file is not None and self._file.is_outdated()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()
        if self._file is not None:
            self._file.close()

    def revision(self) -> int:
        """Return a number that changes with every write to adapters or profiles; cheap to poll."""
        with self._transaction() as connection:
            return connection.execute(select(schema.meta.c.revision)).scalar_one()

    def changes(self, *, poll_s: float) -> Changes:
        """Return what tells when this registry may have changed; a file is looked at every `poll_s` seconds."""
        if not self._on_server:
            return Polling(poll_s)
        _, parameters = self._engine.dialect.create_connect_args(self._engine.url)
        return Listening({**CONNECTING, **parameters})

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let all that this thread reads within be of one revision, whatever is written meanwhile."""
        if getattr(self._frozen, "connection", None) is not None:
            yield
            return
        with in_our_words(self.location), self._engine.connect() as connection:
            if self._on_server:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin(), self._file.unchanged() if self._file else nullcontext():
                if not self._on_server:
                    # The driver begins a transaction by itself only before it writes.
                    connection.exec_driver_sql("BEGIN")
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
        with in_our_words(self.location), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if self._read_only:
            raise RegistryError(f"{self.location} was opened read-only: open it for writing")
        with self._transaction() as connection:
            yield connection

    @contextmanager
    def _revising(self) -> Iterator[Connection]:
        with self._writing() as connection:
            if self._on_server:
                connection.execute(_LONGEST_WAIT)
            connection.execute(update(schema.meta).values(revision=schema.meta.c.revision + 1))
            yield connection
            if self._on_server:
                announce(connection)

    @property
    def _on_server(self) -> bool:
        return self.location.url is not None

    def _signature(self) -> dict[str, Any]:
        """The columns that say who changed a row, and when."""
        return {"changed_at": datetime.now(UTC), "changed_by": self.author}


def put(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    """Insert `row`, in place of an earlier one with its primary key, whoever else does so at the same time."""
    on_server = connection.dialect.name == "postgresql"
    values = (postgresql.insert if on_server else sqlite.insert)(table).values(row)
    connection.execute(values.on_conflict_do_update(index_elements=table.primary_key, set_=row))


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (OSError, KeyError, ImportError):
        # A container's user may have no name.
        return platform.node()
