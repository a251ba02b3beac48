"""Alembic's entry: it runs the migrations on the connection that `upgrade` hands over.

A new migration is a file in `versions/`, written by hand; a test compares what all of them make with `schema`.
"""

from alembic import context

# A name of our own: other programs that use Alembic may live in the same database.
context.configure(connection=context.config.attributes["connection"], version_table="traitroute_migrations")
with context.begin_transaction():
    context.run_migrations()
