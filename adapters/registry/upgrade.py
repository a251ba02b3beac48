"""Bring a registry's tables to this version's schema, from nothing or from any schema that was released."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, select, update

from ..errors import DatabaseError, RegistryError
from .tables import APPLICATION, SCHEMA_VERSION, meta

_FOLDER = Path(__file__).parent / "migrations"
# Alembic's migrations reach their connection through module globals.
_ALEMBIC = threading.Lock()


def schema_of(connection: Connection, place: str) -> int:
    """Return the schema of the registry behind `connection`, 0 where there are no tables of ours.

    Raises:
        RegistryError: the tables are another application's, or a newer version's.
    """
    if not inspect(connection).has_table(meta.name):
        return 0
    row = connection.execute(select(meta.c.application, meta.c.schema_version)).first()
    if row is None or row.application != APPLICATION:
        raise RegistryError(f"{place} is a database but not TraitRoute's: give another")
    if row.schema_version > SCHEMA_VERSION:
        raise RegistryError(
            f"{place} was written by a newer TraitRoute: schema {row.schema_version}, "
            f"this version reads {SCHEMA_VERSION}; upgrade"
        )
    return row.schema_version


@contextmanager
def upgrading(schema: int) -> Iterator[None]:
    """Say what a registry was opened for writing for, where that fails and it was only to be read."""
    try:
        yield
    except DatabaseError as exc:
        why = f"its schema {schema} must become {SCHEMA_VERSION} before it can be read"
        raise type(exc)(f"{exc} ({why})") from exc


def upgrade(connection: Connection, place: str) -> None:
    """Run what is missing, within the transaction and the lock that the caller holds."""
    schema = schema_of(connection, place)
    if schema == SCHEMA_VERSION:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    with _ALEMBIC:
        if schema:
            # Schemas 1 to 3 were made before there were migrations.
            command.stamp(config, str(schema))
        command.upgrade(config, "head")
    connection.execute(update(meta).values(schema_version=SCHEMA_VERSION))
