"""Pending replacements: an adapter's next weights, while it serves the old ones."""

from sqlalchemy import Connection, delete, insert, update

from ..adapter import Adapter, AdapterState
from ..errors import ConflictError, RegistryError
from . import tables as schema
from .adapter_rows import (
    check_collision,
    check_no_replacement,
    find_adapter,
    find_replacement,
    select_adapters,
    to_adapter,
    to_row,
)
from .database import Database

_table = schema.replacements


class ReplacementTable(Database):
    """At most one replacement waits for each adapter; measured, it takes the name over."""

    def replace_adapter(self, new: Adapter, *, expected: Adapter | None = None) -> Adapter:
        """Let `new` wait to take over its name once it is measured, and return it as it is kept.

        Raises:
            ConflictError: a replacement waits already, or the adapter is no longer as `expected`.
            RegistryError: there is no such adapter, it has these weights already, or is for another base model.
        """
        with self._revising() as connection:
            old = find_adapter(connection, new.name, expected=expected)
            check_no_replacement(connection, new.name)
            _check_replaces(old, new)
            check_collision(connection, new)
            change = {"state": AdapterState.PENDING, "tags": old.tags, "version": old.version + 1}
            kept = new.model_copy(update=change)
            connection.execute(insert(_table).values(to_row(kept) | self._signature()))
            return kept

    def replacement(self, name: str) -> Adapter | None:
        """Return the pending replacement of the adapter named `name`, or None."""
        with self._transaction() as connection:
            return find_replacement(connection, name)

    def replacements(self, **having: str) -> list[Adapter]:
        """List the pending replacements by name, only those `having` such values of fields."""
        wanted = [_table.c[field] == value for field, value in having.items()]
        query = select_adapters(_table).where(*wanted)
        with self._transaction() as connection:
            found = [to_adapter(row) for row in connection.execute(query)]
        return sorted(found, key=lambda adapter: adapter.name)

    def withdraw_replacement(self, name: str, *, note: str | None = None) -> Adapter:
        """Give up the pending replacement of `name` and return it; `note`, why, stays with the adapter.

        Raises:
            RegistryError: there is no such adapter, or nothing waits to replace it.
        """
        with self._revising() as connection:
            find_adapter(connection, name)
            found = find_replacement(connection, name)
            if found is None:
                raise RegistryError(f"no replacement of {name!r} is pending: none to withdraw")
            connection.execute(delete(_table).where(_table.c.name == name))
            if note is not None:
                adapters = schema.adapters
                change = {"note": note} | self._signature()
                connection.execute(update(adapters).where(adapters.c.name == name).values(change))
            return found

    def _take_in(self, connection: Connection, measured: Adapter) -> None:
        """Let measured weights be routable: those of the adapter itself, or those that wait to replace them."""
        current = find_adapter(connection, measured.name)
        replacement = find_replacement(connection, measured.name)
        if measured.weights_digest == current.weights_digest:
            new = current
        elif replacement and measured.weights_digest == replacement.weights_digest:
            # What was changed while the replacement waited belongs to the name.
            kept = {"state": current.state, "tags": current.tags, "note": current.note}
            new = replacement.model_copy(update=kept)
            connection.execute(delete(_table).where(_table.c.name == measured.name))
        else:
            raise ConflictError(
                f"the weights measured ({measured.weights_digest[:12]}) are neither those of "
                f"{measured.name!r} nor waiting to replace them: somebody changed it meanwhile, "
                "so measure what is there now"
            )
        self._write_measured(connection, new)

    def _write_measured(self, connection: Connection, adapter: Adapter) -> None:
        """Disabled stays disabled, for an administrator said so; and what no server runs stays pending."""
        row = to_row(adapter) | self._signature() | {"measured": True}
        if adapter.state is not AdapterState.DISABLED:
            row["note"] = None
            state = AdapterState.READY if adapter.vllm_serves else AdapterState.PENDING
            row["state"] = state.value
        adapters = schema.adapters
        connection.execute(update(adapters).where(adapters.c.name == adapter.name).values(row))


def _check_replaces(old: Adapter, new: Adapter) -> None:
    if new.weights_digest == old.weights_digest:
        raise RegistryError(f"{old.name!r} has these weights already: nothing to replace")
    if new.base_digest != old.base_digest:
        raise RegistryError(
            f"{old.name!r} is an adapter for {old.base_model}, its replacement one for "
            f"{new.base_model}: add it under another name"
        )
