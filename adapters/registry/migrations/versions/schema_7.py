"""Schema 7: feedback says who told it, by a hash with a secret of the registry's."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "7"
down_revision = "6"


def upgrade() -> None:
    """Draw the secret, and add the column; nobody knows any more who told what is there."""
    secret = sa.Column("secret", sa.String(64), nullable=False, server_default="")
    op.add_column("traitroute_meta", secret)
    drawn = sa.text("UPDATE traitroute_meta SET secret = :secret")
    op.get_bind().execute(drawn, {"secret": secrets.token_hex(32)})
    op.add_column("feedback", sa.Column("giver", sa.String(32)))
    op.create_index("ix_feedback_giver", "feedback", ["giver", "rewarded_at"])
