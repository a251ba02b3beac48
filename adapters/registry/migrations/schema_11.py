"""Schema 11: an adapter may get a share of the traffic it would win, and the steps of that are kept."""

import sqlalchemy as sa
from alembic import op

revision = "11"
down_revision = "10"


def upgrade() -> None:
    """Add the share, which is all of it for the adapters that are there, whom it replaces, and the table of steps."""
    for table in ("adapters", "replacements"):
        op.add_column(table, sa.Column("canary", sa.Float))
        op.add_column(table, sa.Column("replaces", sa.String(64)))
    op.create_table(
        "canary_steps",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("adapter", sa.String(64), nullable=False, index=True),
        sa.Column("weights_digest", sa.String(64), nullable=False),
        sa.Column("made_at", sa.DateTime, nullable=False),
        sa.Column("made_by", sa.String, nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("why", sa.String(16), nullable=False),
        sa.Column("figures", sa.JSON),
    )
