"""The registry's tables.

`traitroute_meta` has one row; its `secret` (hexadecimal) hashes what must not be kept. Every future schema keeps its columns `application` and
`schema_version`, so that an old version can say that a registry is too new for it. How one schema
became the next is told by `migrations`.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
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
    select,
    true,
)

APPLICATION = "traitroute"
SCHEMA_VERSION = 7


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
    Column("secret", String(64), nullable=False, server_default=""),
)


def _revision() -> Column[int]:
    """The registry's revision in which the row was last written, so that servers read what is new to them."""
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
        Column("changed_at", UtcDateTime),
        Column("changed_by", String),
    ]


# `measured`: a profile holds a row of exactly these weights, so enabling makes them routable.
adapters = Table(
    "adapters",
    metadata,
    *_adapter_columns(),
    Column("measured", Boolean, nullable=False, server_default=true()),
    _revision(),
)

# The next weights of an adapter, which serves its old ones until these are measured.
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
    Column("score", Float, nullable=False),
    Column("outcomes", LargeBinary, nullable=False),
)

# `routing` and `matrices` are lists of pieces: what the router reads, and the tables of the summary.
profiles = Table(
    "profiles",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("routing", JSON, nullable=False),
    Column("matrices", JSON, nullable=False),
    Column("summary", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("origin", String(16), nullable=False, server_default="fit"),
    Column("parent", Integer),
    _revision(),
)

pieces = Table(
    "pieces",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

# Of a request it keeps what was decided and how that turned out; no text, ever.
feedback = Table(
    "feedback",
    metadata,
    Column("token", String(255), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("adapter", String(64)),
    Column("predicted_gain", Float, nullable=False),
    Column("profile_version", Integer),
    Column("reward", Float),
    Column("rewarded_at", UtcDateTime),
    Column("giver", String(32)),
    Index("ix_feedback_giver", "giver", "rewarded_at"),
)

# What servers saw of the stream of requests: counts, and features of some that were like nothing profiled.
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
