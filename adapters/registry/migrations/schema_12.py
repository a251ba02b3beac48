"""Schema 12: a few encrypted texts of requests that recur and that nothing profiled is like."""

import sqlalchemy as sa
from alembic import op

revision = "12"
down_revision = "11"


def upgrade() -> None:
    """Add the table, which stays empty unless the operator gives a key."""
    op.create_table(
        "samples",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False, index=True),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False, index=True),
        sa.Column("profile_version", sa.Integer, nullable=False),
        sa.Column("tenant", sa.String(64)),
        sa.Column("features", sa.LargeBinary, nullable=False),
        sa.Column("text", sa.LargeBinary, nullable=False),
    )
