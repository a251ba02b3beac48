"""Alembic migrations of the registry: `schema_N.py` leads to schema N."""
