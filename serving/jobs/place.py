"""Where jobs are kept: an SQLite file beside the registry's, or the registry's own PostgreSQL database.

DBOS Transact keeps them (schema `dbos` on PostgreSQL); everything in it is JSON, by its portable serializer.
"""

from pathlib import Path

from ...adapters.registry.location import Location

QUEUE = "measure-rows"
SCHEMA = "dbos"
"""Where DBOS's tables are in a PostgreSQL database."""
APPLICATION = "traitroute"
APPLICATION_VERSION = "jobs-1"
"""Raised when the steps of a job change, so that a worker never takes up a job of other steps."""


def jobs_file(location: Location) -> Path | None:
    """The file with the jobs of the registry at `location`; None where they are in its database."""
    path = location.path
    return None if path is None else path.with_name(f"{path.stem}.jobs.db")


def jobs_url(location: Location) -> str:
    """The database with the jobs, for DBOS; it may hold a password."""
    file = jobs_file(location)
    return location.reveal() if file is None else f"sqlite:///{file.resolve()}"
