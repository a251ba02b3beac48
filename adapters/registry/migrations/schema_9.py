"""Schema 9, the baseline: all tables of the first release. Lower numbers were development versions."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "9"
down_revision = None


def upgrade() -> None:
    """Create the tables, and the row that names the application and holds the registry's secret."""
    meta = op.create_table(
        "traitroute_meta",
        sa.Column("application", sa.String(32), primary_key=True),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("secret", sa.String(64), nullable=False, server_default=""),
    )
    first = {"application": "traitroute", "schema_version": 9, "revision": 0, "secret": secrets.token_hex(32)}
    op.bulk_insert(meta, [first])
    op.create_table(
        "adapters",
        *_adapter_columns(),
        sa.Column("measured", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table("replacements", *_adapter_columns())
    _create_measurements()
    _create_traffic()


def _adapter_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("base_model", sa.String, nullable=False),
        sa.Column("base_digest", sa.String(64), nullable=False),
        sa.Column("weights_digest", sa.String(64), nullable=False),
        sa.Column("serving_id", sa.Integer, nullable=False, index=True),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("target_modules", sa.JSON, nullable=False),
        sa.Column("method", sa.String(16), nullable=False, server_default="lora"),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source_task", sa.String(64)),
        sa.Column("tags", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("uri", sa.String),
        sa.Column("licence", sa.String),
        sa.Column("note", sa.String),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
        sa.Column("effect", sa.Float),
        sa.Column("noise", sa.Float),
        sa.Column("changed_at", sa.DateTime),
        sa.Column("changed_by", sa.String),
    ]


def _create_measurements() -> None:
    op.create_table(
        "tasks",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
    )
    op.create_table(
        "cells",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("adapter", sa.String(64)),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("outcomes", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "profiles",
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("routing", sa.JSON, nullable=False),
        sa.Column("tables", sa.JSON, nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("origin", sa.String(16), nullable=False, server_default="fit"),
        sa.Column("parent", sa.Integer),
        sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table(
        "chunks",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _create_traffic() -> None:
    op.create_table(
        "feedback",
        sa.Column("token", sa.String(255), primary_key=True),
        sa.Column("created_at", sa.DateTime, nullable=False, index=True),
        sa.Column("adapter", sa.String(64)),
        sa.Column("predicted_gain", sa.Float, nullable=False),
        sa.Column("profile_version", sa.Integer),
        sa.Column("reward", sa.Float),
        sa.Column("rewarded_at", sa.DateTime),
        sa.Column("reporter", sa.String(32)),
    )
    op.create_index("ix_feedback_reporter", "feedback", ["reporter", "rewarded_at"])
    op.create_table(
        "demand_windows",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("profile_version", sa.Integer, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("novel", sa.Integer, nullable=False),
        sa.Column("features", sa.LargeBinary, nullable=False),
    )
