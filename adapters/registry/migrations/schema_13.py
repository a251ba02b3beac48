"""Schema 13: what comparing adapters on recurring requests gave, for an operator to look at and admit."""

import sqlalchemy as sa
from alembic import op

revision = "13"
down_revision = "12"


def upgrade() -> None:
    """Add the table, which stays empty unless adapters are compared."""
    op.create_table(
        "comparisons",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("profile_version", sa.Integer, nullable=False),
        sa.Column("compared_at", sa.DateTime, nullable=False),
        sa.Column("figures", sa.JSON, nullable=False),
        sa.Column("features", sa.LargeBinary, nullable=False),
    )
