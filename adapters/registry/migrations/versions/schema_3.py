"""Schema 3: adapters carry tags."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Add the tags."""
    op.add_column("adapters", sa.Column("tags", sa.JSON, nullable=False, server_default="[]"))
