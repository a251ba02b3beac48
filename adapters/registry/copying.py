"""A registry copied to another place: from a file to a database when one machine becomes a fleet, or back."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import RowMapping, func, insert, select, update

from ..errors import RegistryError, WeightsError
from . import tables as schema
from .registry import Registry

_ROWS_AT_ONCE = 200
_TABLES = [table for table in schema.metadata.sorted_tables if table is not schema.meta]


def copy_registry(
    source: Registry,
    target: Registry,
    *,
    on_part: Callable[[str, int], None] = lambda part, count: None,
) -> None:
    """Copy everything in `source`, weights first, into `target`, which must be empty; `on_part` is told what was copied.

    Nothing else may write to `source` meanwhile. Where it fails, `target` holds no rows.

    Raises:
        RegistryError: `target` holds something already.
        WeightsError: weights of an adapter are missing or have changed.
    """
    with source._transaction() as reading, target._revising() as writing:
        for table in _TABLES:
            if writing.execute(select(func.count()).select_from(table)).scalar_one():
                raise RegistryError(f"{target.location} holds {table.name} already: give an empty one to copy to")
        on_part("weights", _copy_weights(source, target))
        secret = reading.execute(select(schema.meta.c.secret)).scalar_one()
        writing.execute(update(schema.meta).values(secret=secret))
        for table in _TABLES:
            count = 0
            for rows in reading.execute(select(table)).mappings().partitions(_ROWS_AT_ONCE):
                writing.execute(insert(table), [_unrevised(row) for row in rows])
                count += len(rows)
            on_part(table.name, count)


def _unrevised(row: RowMapping) -> dict[str, Any]:
    """The row without its revision: revisions are counted anew in each registry."""
    return {str(column): value for column, value in row.items() if column != "revision"}


def _copy_weights(source: Registry, target: Registry) -> int:
    wanted = {a.weights_digest for a in [*source.adapters(), *source.replacements()]}
    if source.weights.root == target.weights.root:
        return 0
    for digest in sorted(wanted):
        found = target.weights.add(source.weights.path(digest)).digest
        if found != digest:
            raise WeightsError(
                f"the weights in {source.weights.path(digest)} have changed: their digest is now "
                f"{found}; restore them, or remove their adapter"
            )
    return len(wanted)
