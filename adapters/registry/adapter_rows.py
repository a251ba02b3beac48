"""Adapters as rows of the registry: read, found by name, checked against each other."""

from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, select

from ..adapter import Adapter, check_name, check_not_base
from ..errors import ConflictError, RegistryError, UnknownNameError
from ..neighbours import COMPARED, PREFIX, SHOWN, told
from .tables import adapters, replacements


def select_adapters(table: Table = adapters) -> Select[Any]:
    """Select the columns that `to_adapter` needs."""
    return select(*(table.c[field] for field in Adapter.model_fields))


def to_row(adapter: Adapter) -> dict[str, Any]:
    """Turn an adapter into the values of its row."""
    derived = {"state": adapter.state.value, "serving_id": adapter.serving_id}
    return adapter.model_dump() | derived


def to_adapter(row: Row[Any]) -> Adapter:
    """Read a row of `select_adapters`."""
    # By place: a row's mapping is made anew for each row, which takes longer than the checks.
    return Adapter.model_validate(dict(zip(Adapter.model_fields, row, strict=True)))


def check_collision(connection: Connection, adapter: Adapter) -> None:
    """Refuse the base model's name, and a serving id that other weights have, even those of the adapter being replaced."""
    try:
        check_not_base(adapter.name, adapter.base_model)
    except ValueError as exc:
        raise RegistryError(str(exc)) from exc
    for table in (adapters, replacements):
        query = select(table.c.name).where(
            table.c.serving_id == adapter.serving_id,
            table.c.weights_digest != adapter.weights_digest,
        )
        if other := connection.execute(query).scalars().first():
            raise RegistryError(
                f"serving id collision: the weights of {adapter.name!r} and {other!r} differ, but "
                f"both map to id {adapter.serving_id}; train again, for any changed byte gives "
                "another id"
            )


def find_adapter(connection: Connection, name: str, *, expected: Adapter | None = None) -> Adapter:
    """Return the adapter named `name`, if there is one.

    Raises:
        UnknownNameError: there is none; the message names its neighbours.
        ConflictError: it is no longer as `expected`.
    """
    try:
        check_name(name)
    except ValueError as exc:
        # Not asked for: PostgreSQL refuses some characters as an error of the database's.
        raise UnknownNameError(f"no adapter has such a name: {exc}") from exc
    row = connection.execute(select_adapters().where(adapters.c.name == name)).first()
    if row is None:
        raise UnknownNameError(_unknown(connection, name))
    found = to_adapter(row)
    if expected is not None and found != expected:
        raise ConflictError(f"{name!r} {_last_change(connection, adapters, name)}: {_AGAIN}")
    return found


def find_replacement(connection: Connection, name: str) -> Adapter | None:
    """Return the pending replacement of the adapter named `name`, if there is one."""
    query = select_adapters(replacements).where(replacements.c.name == name)
    row = connection.execute(query).first()
    return None if row is None else to_adapter(row)


def check_no_replacement(connection: Connection, name: str) -> None:
    """Refuse where the adapter named `name` waits for a replacement already."""
    if find_replacement(connection, name) is not None:
        change = _last_change(connection, replacements, name)
        raise ConflictError(
            f"a replacement of {name!r} {change} and is not measured yet: wait for it, or withdraw it first"
        )


_AGAIN = "read it again and repeat the change"


def _last_change(connection: Connection, table: Table, name: str) -> str:
    query = select(table.c.changed_at, table.c.changed_by).where(table.c.name == name)
    row = connection.execute(query).one()
    when = f" at {row.changed_at:%Y-%m-%d %H:%M:%S} UTC" if row.changed_at else ""
    return f"was changed{when} by {row.changed_by or 'somebody else'}"


def _unknown(connection: Connection, name: str) -> str:
    column = adapters.c.name
    total = connection.execute(select(func.count()).select_from(adapters)).scalar_one()
    if not total:
        return f"no adapter named {name!r}: the registry holds none yet, so add one first"
    names = select(column).order_by(column)
    near = names if total <= COMPARED else names.where(func.substr(column, 1, PREFIX) == name[:PREFIX])
    alike = connection.execute(near.limit(COMPARED)).scalars().all()
    shown = connection.execute(names.limit(SHOWN)).scalars().all()
    return f"no adapter named {name!r}{told(name, alike, shown=sorted(shown), total=total)}"
