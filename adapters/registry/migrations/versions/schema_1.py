"""Schema 1: adapters, tasks, cells and profiles."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make the first tables, and the one row that names the application."""
    meta = op.create_table(
        "traitroute_meta",
        sa.Column("application", sa.String(32), primary_key=True),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_table(
        "adapters",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("base_model", sa.String, nullable=False),
        sa.Column("base_digest", sa.String(64), nullable=False),
        sa.Column("weights_digest", sa.String(64), nullable=False),
        sa.Column("serving_id", sa.Integer, nullable=False, index=True),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("target_modules", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source_task", sa.String(64)),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
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
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("outcomes", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "profiles",
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.bulk_insert(meta, [{"application": "traitroute", "schema_version": 1, "revision": 0}])
