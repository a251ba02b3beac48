"""The registry's tables, and how a registry is brought to the newest version of them.

`traitroute_meta` has one row; its `secret` (hexadecimal) is the key of the hash that stands for an API key. Every
future schema keeps its columns `application` and `schema_version`, so that an old program can report that a registry is
too new for it. `migrations` holds the steps from each schema to the next, written by hand; a test compares what they
make with the tables here.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    inspect,
    select,
    true,
    update,
)

from ..errors import DatabaseError, RegistryError

APPLICATION = "traitroute"
SCHEMA_VERSION = 13
BASELINE = 9
"""The oldest schema that can be migrated. Lower numbers were development versions, never released."""
MIGRATIONS = Path(__file__).parent / "migrations"
# Migrations reach their connection through a global of Alembic's.
_ALEMBIC = threading.Lock()


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept as naive UTC because SQLite has no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC and drop the zone."""
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Mark the time as UTC."""
        return value and value.replace(tzinfo=UTC)


metadata = MetaData()

meta = Table(
    "traitroute_meta",
    metadata,
    Column("application", String(32), primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("secret", String(64), nullable=False, server_default=""),
)


def _revision() -> Column[int]:
    """The registry's revision at which the row was last written, so that servers read only what is new to them."""
    newest = select(meta.c.revision).scalar_subquery()
    return Column("revision", Integer, nullable=False, server_default="0", default=newest, onupdate=newest)


def _adapter_columns() -> list[Column[object]]:
    """The columns of an `Adapter`, and who changed it last."""
    return [
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
        Column("uri", String),
        Column("licence", String),
        Column("note", String),
        Column("version", Integer, nullable=False, server_default="1"),
        Column("effect", Float),
        Column("noise", Float),
        Column("canary", Float),
        Column("replaces", String(64)),
        Column("changed_at", UtcDateTime),
        Column("changed_by", String),
    ]


# `measured`: a profile has a row for exactly these weights, so the adapter is routable once it is enabled.
adapters = Table(
    "adapters",
    metadata,
    *_adapter_columns(),
    Column("measured", Boolean, nullable=False, server_default=true()),
    _revision(),
)

# An adapter's next weights, which wait to be measured while the old ones are served.
replacements = Table("replacements", metadata, *_adapter_columns())

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
    Column("outcomes", LargeBinary, nullable=False),
)

# `state` and `tables` are lists of digests of chunks: of what the router reads, and of the summary's tables.
profiles = Table(
    "profiles",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("routing", JSON, nullable=False),
    Column("tables", JSON, nullable=False),
    Column("summary", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("origin", String(16), nullable=False, server_default="fit"),
    Column("parent", Integer),
    _revision(),
)

chunks = Table(
    "chunks", metadata, Column("digest", String(64), primary_key=True), Column("data", LargeBinary, nullable=False)
)

# Routing decisions and how they turned out, a row a source that says so; never any text of a request. `reporter` is a
# hash of an API key.
feedback = Table(
    "feedback",
    metadata,
    Column("token", String(512), primary_key=True),
    Column("source", String(16), primary_key=True, server_default="user"),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("adapter", String(64)),
    Column("predicted_gain", Float, nullable=False),
    Column("profile_version", Integer),
    Column("reward", Float),
    Column("rewarded_at", UtcDateTime),
    Column("reporter", String(32)),
    Index("ix_feedback_reporter", "reporter", "rewarded_at"),
)

# From when on an adapter got which share of the traffic it would win, and by which figures.
canary_steps = Table(
    "canary_steps",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("adapter", String(64), nullable=False, index=True),
    Column("weights_digest", String(64), nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("made_by", String, nullable=False),
    Column("share", Float, nullable=False),
    Column("why", String(16), nullable=False),
    Column("figures", JSON),
)

# Counts of the requests that servers routed, and features of some that were unlike anything profiled.
demand_windows = Table(
    "demand_windows",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("profile_version", Integer, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("novel", Integer, nullable=False),
    Column("features", LargeBinary, nullable=False),
)

# A few texts of requests that recur and that nothing profiled is like, encrypted by a key that is not here; removed
# once they expire. `tenant` is whose key sent one (null: the operator's).
samples = Table(
    "samples",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("kind", String(16), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("profile_version", Integer, nullable=False),
    Column("tenant", String(64)),
    Column("features", LargeBinary, nullable=False),
    Column("text", LargeBinary, nullable=False),
)

# What comparing the adapters on such requests gave, by kind: figures, and the requests' features; no text.
comparisons = Table(
    "comparisons",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("profile_version", Integer, nullable=False),
    Column("compared_at", UtcDateTime, nullable=False),
    Column("figures", JSON, nullable=False),
    Column("features", LargeBinary, nullable=False),
)


def schema_of(connection: Connection, place: str) -> int:
    """Return the schema of the registry behind `connection`, 0 where it has no table of ours.

    Raises:
        RegistryError: the tables are another application's, a newer version's, or a development version's.
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
    if row.schema_version < BASELINE:
        raise RegistryError(
            f"{place} was written by a development version before 0.1.0: schema {row.schema_version}, this version "
            f"reads {BASELINE} and later; make a new registry with `traitroute profile`"
        )
    return row.schema_version


@contextmanager
def migrating(schema: int) -> Iterator[None]:
    """Explain a failure to open a registry for writing that was only to be read, but must be migrated first."""
    try:
        yield
    except DatabaseError as exc:
        why = f"its schema {schema} must become {SCHEMA_VERSION} before it can be read"
        raise type(exc)(f"{exc} ({why})") from exc


def migrate(connection: Connection, place: str) -> None:
    """Run the migrations that are missing, within the transaction and the lock that the caller holds."""
    if schema_of(connection, place) == SCHEMA_VERSION:
        return
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)])
    context = MigrationContext.configure(
        connection,
        opts={
            # A name of our own: other programs that use Alembic may share the database.
            "version_table": "traitroute_migrations",
            "fn": lambda current, _: scripts._upgrade_revs("head", current),
        },
    )
    with _ALEMBIC, Operations.context(context):
        context.run_migrations()
    connection.execute(update(meta).values(schema_version=SCHEMA_VERSION))
