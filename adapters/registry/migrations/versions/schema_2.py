"""Schema 2: adapters say by which method they were trained; all were LoRA before."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add the method."""
    method = sa.Column("method", sa.String(16), nullable=False, server_default="lora")
    op.add_column("adapters", method)
