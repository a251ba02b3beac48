"""The registry: its tables, one concept a module, in an SQLite file or a PostgreSQL database."""
