"""Schema 6: profiles are kept in pieces, which versions share."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "6"
down_revision = "5"


def upgrade() -> None:
    """Cut what is there; the tables of its summaries stay in them."""
    pieces = op.create_table(
        "pieces",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    for name in ("routing", "matrices"):
        op.add_column("profiles", sa.Column(name, sa.JSON, nullable=False, server_default="[]"))
    connection, kept = op.get_bind(), set[str]()
    for version in connection.execute(sa.text("SELECT version FROM profiles")).scalars().all():
        query = sa.text("SELECT data FROM profiles WHERE version = :version")
        data = bytes(connection.execute(query, {"version": version}).scalar_one())
        size = 2**18
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        digests = [hashlib.sha256(part).hexdigest() for part in parts]
        for digest, part in zip(digests, parts, strict=True):
            if digest not in kept:
                connection.execute(sa.insert(pieces).values(digest=digest, data=part))
                kept.add(digest)
        change = sa.text("UPDATE profiles SET routing = :routing WHERE version = :version")
        connection.execute(change, {"routing": json.dumps(digests), "version": version})
    op.drop_column("profiles", "data")
