"""How each schema of the registry became the next, as Alembic's environment."""
