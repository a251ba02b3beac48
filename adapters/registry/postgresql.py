"""A registry in a PostgreSQL database, which many servers and administrators share."""

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import ArgumentError

from ..errors import RegistryError, TraitRouteError
from .database_errors import in_our_words
from .location import Location
from .tables import SCHEMA_VERSION
from .upgrade import schema_of, upgrade, upgrading

CHANNEL = "traitroute"
"""What is notified of every new revision."""

# A connection whose server is gone without a word is found dead within about 20 s.
CONNECTING: dict[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
_UPGRADING = 0x7472_6169
"""The advisory lock under which one process makes or upgrades the tables: any number, the same for all."""


def open_database(url: URL, *, read_only: bool, create: bool) -> Engine:
    """Connect to the registry at `url` after checking that it is one this version reads.

    Raises:
        DatabaseError: the server is not there, or does not let us in.
        RegistryError: psycopg is not installed, there is no registry and `create` is false, or its
            schema is newer.
    """
    engine = _engine(url, read_only=read_only)
    try:
        with in_our_words(Location(url=url)):
            _check_schema(url, engine, read_only=read_only, create=create)
    except TraitRouteError:
        engine.dispose()
        raise
    return engine


def _engine(url: URL, *, read_only: bool) -> Engine:
    given = {key: value for key, value in CONNECTING.items() if key not in url.query}
    options = {"postgresql_readonly": True} if read_only else {}
    try:
        # Pinged first: the server may have been started anew since a connection was last used.
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
        schema = schema_of(connection, place)
    if schema == SCHEMA_VERSION:
        return
    if not schema and not create:
        raise RegistryError(f"no registry at {place}: make one with `traitroute profile`")
    if read_only:
        with upgrading(schema):
            open_database(url, read_only=False, create=create).dispose()
        return
    with engine.begin() as connection:
        # Whoever comes first upgrades; another process waits here and finds it done.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADING})
        upgrade(connection, place)


def announce(connection: Connection) -> None:
    """Tell every listener, once this transaction is committed, that there is a new revision."""
    connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
