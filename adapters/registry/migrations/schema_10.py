"""Schema 10: several sources may report on one decision, and tokens say more, so they are longer."""

import sqlalchemy as sa
from alembic import op

revision = "10"
down_revision = "9"

_KEPT = "token, created_at, adapter, predicted_gain, profile_version, reward, rewarded_at, reporter"


def upgrade() -> None:
    """Make the table of feedback anew, since SQLite changes no primary key; what is there was reported by users."""
    op.drop_index("ix_feedback_reporter", "feedback")
    op.drop_index("ix_feedback_created_at", "feedback")
    op.create_table(
        "feedback_10",
        sa.Column("token", sa.String(512), primary_key=True),
        sa.Column("source", sa.String(16), primary_key=True, server_default="user"),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("adapter", sa.String(64)),
        sa.Column("predicted_gain", sa.Float, nullable=False),
        sa.Column("profile_version", sa.Integer),
        sa.Column("reward", sa.Float),
        sa.Column("rewarded_at", sa.DateTime),
        sa.Column("reporter", sa.String(32)),
    )
    op.execute(f"INSERT INTO feedback_10 ({_KEPT}) SELECT {_KEPT} FROM feedback")
    op.drop_table("feedback")
    op.rename_table("feedback_10", "feedback")
    op.create_index("ix_feedback_created_at", "feedback", ["created_at"])
    op.create_index("ix_feedback_reporter", "feedback", ["reporter", "rewarded_at"])
