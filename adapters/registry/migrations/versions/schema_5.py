"""Schema 5: adapters and profiles say in which revision they were last written, so that servers read only what is new."""

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """Add the revisions; what is there already is older than any."""
    for table in ("adapters", "profiles"):
        op.add_column(table, sa.Column("revision", sa.Integer, nullable=False, server_default="0"))
