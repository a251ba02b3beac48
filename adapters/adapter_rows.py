"""Adapters as rows of the registry: read, found by name, checked against each other."""

import difflib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from .adapter import Adapter
from .errors import RegistryError
from .schema import adapters as table

_NAMES_SHOWN = 20


def select_adapters() -> Select[Any]:
    """Select the columns that `to_adapter` needs."""
    return select(*(table.c[field] for field in Adapter.model_fields))


def to_row(adapter: Adapter) -> dict[str, Any]:
    """Turn an adapter into the values of its row."""
    derived = {"state": adapter.state.value, "serving_id": adapter.serving_id}
    return adapter.model_dump() | derived


def to_adapter(row: Row[Any]) -> Adapter:
    """Read a row of `select_adapters`."""
    return Adapter.model_validate(dict(row._mapping))


def check_collision(connection: Connection, adapter: Adapter) -> None:
    """Refuse a serving id that other weights have, even those of the adapter being replaced."""
    query = select(table.c.name).where(
        table.c.serving_id == adapter.serving_id, table.c.weights_digest != adapter.weights_digest
    )
    if other := connection.execute(query).scalars().first():
        raise RegistryError(
            f"serving id collision: the weights of {adapter.name!r} and {other!r} differ, but both "
            f"map to id {adapter.serving_id}; train again, for any changed byte gives another id"
        )


def find_adapter(connection: Connection, name: str) -> Adapter:
    """Return the adapter named `name`, or raise a `RegistryError` that names its neighbours."""
    row = connection.execute(select_adapters().where(table.c.name == name)).first()
    if row is None:
        names = connection.execute(select(table.c.name).order_by(table.c.name)).scalars().all()
        raise RegistryError(_unknown(name, names))
    return to_adapter(row)


def _unknown(name: str, names: Sequence[str]) -> str:
    if not names:
        return f"no adapter named {name!r}: the registry holds none yet, so add one first"
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    more = len(names) - _NAMES_SHOWN
    known = ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"no adapter named {name!r}{hint} Known: {known}"
