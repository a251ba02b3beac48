"""A registry in a PostgreSQL database, which many servers and administrators share.

Servers are notified of changes (LISTEN and NOTIFY), so that a thousand of them do not query the database every second.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import ArgumentError

from ..errors import RegistryError
from . import schema
from .database import translated_errors
from .location import Location

CHANNEL = "traitroute"
"""The channel on which every new revision is notified."""
LOOK_S = 30.0
"""A server looks this often even without a notification, for one may be lost in a broken network."""
RETRY_S = 1.0
SPREAD_S = 0.2
"""All are notified at once; each waits up to this long, so that not all read together and a burst is read once."""

# A connection whose server is gone without closing it is found dead within about 20 s.
CONNECTING: dict[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
_MIGRATING = 0x7472_6169
"""The advisory lock under which one process creates or migrates the tables: any number, the same for all."""
_LONGEST_WAIT = text("SET LOCAL lock_timeout = '30s'")


class RegistryServer:
    """A registry in an open database; see `Backend`."""

    identity = None

    def __init__(self, url: URL, *, read_only: bool) -> None:
        self.engine = open_database(url, read_only=read_only, create=False)

    def is_outdated(self) -> bool:
        """Never: every connection sees what is there."""
        return False

    def changes(self, poll_s: float) -> "Listening":
        """Return what listens for notifications."""
        _, parameters = self.engine.dialect.create_connect_args(self.engine.url)
        return Listening({**CONNECTING, **parameters})

    @contextmanager
    def snapshot(self, connection: Connection) -> Iterator[None]:
        """A transaction that sees nothing written meanwhile."""
        connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield

    @contextmanager
    def revising(self, connection: Connection) -> Iterator[None]:
        """Limit the wait for other writers, and notify every listener once the transaction is committed."""
        connection.execute(_LONGEST_WAIT)
        yield
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_database(url: URL, *, read_only: bool, create: bool) -> Engine:
    """Connect to the registry at `url` after checking that it is one this version reads.

    Raises:
        DatabaseError: the server is not there, or refuses the connection.
        RegistryError: psycopg is not installed, there is no registry and `create` is false, or its schema is unknown.
    """
    engine = _engine(url, read_only=read_only)
    try:
        with translated_errors(Location(url=url)):
            _check_schema(url, engine, read_only=read_only, create=create)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _engine(url: URL, *, read_only: bool) -> Engine:
    given = {key: value for key, value in CONNECTING.items() if key not in url.query}
    options = {"postgresql_readonly": True} if read_only else {}
    try:
        # Pinged first: the server may have been restarted since a connection was last used.
        return create_engine(url, connect_args=given, pool_pre_ping=True, execution_options=options)
    except ImportError as exc:
        raise RegistryError(f"{Location(url=url)} needs psycopg: pip install 'traitroute[postgresql]'") from exc
    except ArgumentError as exc:
        raise RegistryError(
            f"the hosts and ports of {Location(url=url)} cannot be read: mend what follows its `?`"
        ) from exc


def _check_schema(url: URL, engine: Engine, *, read_only: bool, create: bool) -> None:
    place = str(Location(url=url))
    with engine.connect() as connection:
        number = schema.schema_of(connection, place)
    if number == schema.SCHEMA_VERSION:
        return
    if not number and not create:
        raise RegistryError(f"no registry at {place}: make one with `traitroute profile`")
    if read_only:
        with schema.migrating(number):
            open_database(url, read_only=False, create=create).dispose()
        return
    with engine.begin() as connection:
        # The first process migrates; others wait here and find it done.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
        schema.migrate(connection, place)


class Listening:
    """Listens on a connection of its own, made with psycopg's `parameters`, and made anew when it breaks."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters
        self._connection: Any = None

    async def wait(self) -> None:
        """Return soon after a notification, at the latest after `LOOK_S`; at once where listening has just begun."""
        import psycopg

        try:
            if self._connection is None:
                # What was written before the first LISTEN is read now.
                async with asyncio.timeout(LOOK_S):
                    await self._connect()
                return
            async for _ in self._connection.notifies(timeout=LOOK_S, stop_after=1):
                await asyncio.sleep(random.uniform(0, SPREAD_S))
        except (psycopg.Error, OSError):
            await self.close()
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.0))

    async def close(self) -> None:
        """Close the connection."""
        import psycopg

        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error, OSError):
                await connection.close()

    async def _connect(self) -> None:
        from psycopg import AsyncConnection

        # Set at once, so that `close` finds it however this ends.
        self._connection = await AsyncConnection.connect(**self._parameters, autocommit=True)
        await self._connection.execute(f"LISTEN {CHANNEL}")
