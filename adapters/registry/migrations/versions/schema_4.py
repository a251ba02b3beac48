"""Schema 4: where adapters come from and who changed them, pending replacements, lineage of profiles, feedback, the stream of demands."""

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Add the columns and the three tables."""
    for column in _provenance():
        op.add_column("adapters", column)
    # Until now only measured adapters became ready, and only ready ones had a reason to be disabled.
    measured = sa.Column("measured", sa.Boolean, nullable=False, server_default=sa.true())
    op.add_column("adapters", measured)
    op.execute("UPDATE adapters SET measured = false WHERE state = 'pending'")
    _create_replacements()
    origin = sa.Column("origin", sa.String(16), nullable=False, server_default="fit")
    op.add_column("profiles", origin)
    op.add_column("profiles", sa.Column("parent", sa.Integer))
    op.create_table(
        "feedback",
        sa.Column("token", sa.String(255), primary_key=True),
        sa.Column("created_at", sa.DateTime, nullable=False, index=True),
        sa.Column("adapter", sa.String(64)),
        sa.Column("predicted_gain", sa.Float, nullable=False),
        sa.Column("profile_version", sa.Integer),
        sa.Column("reward", sa.Float),
        sa.Column("rewarded_at", sa.DateTime),
    )
    op.create_table(
        "demand_windows",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("profile_version", sa.Integer, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("novel", sa.Integer, nullable=False),
        sa.Column("features", sa.LargeBinary, nullable=False),
    )


def _provenance() -> list[sa.Column[object]]:
    return [
        sa.Column("uri", sa.String),
        sa.Column("licence", sa.String),
        sa.Column("note", sa.String),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
        sa.Column("changed_at", sa.DateTime),
        sa.Column("changed_by", sa.String),
    ]


def _create_replacements() -> None:
    op.create_table(
        "replacements",
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
        *_provenance(),
    )
