"""The registry's adapters: added, listed, changed and removed."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update

from ..adapter import Adapter, AdapterState, check_name
from ..errors import RegistryError
from . import tables as schema
from .adapter_rows import check_collision, find_adapter, select_adapters, to_adapter, to_row
from .database import Database

_table = schema.adapters


class AdapterTable(Database):
    """Changes take `expected`, the adapter as the caller read it, and refuse where it was changed since."""

    def add_adapter(self, adapter: Adapter, *, replace: bool = False) -> None:
        """Record `adapter`; with `replace`, at once in place of one with its name (see also `replace_adapter`).

        Raises:
            RegistryError: the name is taken and `replace` is false, or its serving id is that of
                other weights.
        """
        with self._revising() as connection:
            check_collision(connection, adapter)
            same_name = _table.c.name == adapter.name
            query = select(_table.c.weights_digest, _table.c.version).where(same_name)
            old = connection.execute(query).first()
            if old and not replace:
                raise RegistryError(
                    f"an adapter named {adapter.name!r} is there already: choose another name, or replace it"
                )
            connection.execute(delete(_table).where(same_name))
            row = to_row(adapter) | self._signature()
            row["measured"] = adapter.state is AdapterState.READY
            if old:
                row["version"] = old.version + (old.weights_digest != adapter.weights_digest)
            connection.execute(insert(_table).values(row))

    def adapter(self, name: str) -> Adapter:
        """Return the adapter named `name`.

        Raises:
            RegistryError: there is none.
        """
        with self._transaction() as connection:
            return find_adapter(connection, name)

    def adapters(
        self,
        state: AdapterState | None = None,
        *,
        limit: int | None = None,
        since: int | None = None,
        names: Collection[str] | None = None,
        **having: str,
    ) -> list[Adapter]:
        """List the adapters by name; with `state`, only those in it, and only those `having` such values of fields.

        With `since`, a revision, only those that were written after it; with `names`, only those of these names.
        """
        having |= {} if state is None else {"state": state.value}
        wanted = [_table.c[field] == value for field, value in having.items()]
        if since is not None:
            wanted.append(_table.c.revision > since)
        if names is not None:
            wanted.append(_table.c.name.in_(names))
        query = select_adapters().where(*wanted).order_by(_table.c.name).limit(limit)
        with self._transaction() as connection:
            found = [to_adapter(row) for row in connection.execute(query)]
        # Databases differ in how they sort text.
        return sorted(found, key=lambda adapter: adapter.name)

    def base_models(self) -> dict[str, str]:
        """Name the base models that adapters are for, by their digests."""
        query = select(_table.c.base_digest, _table.c.base_model).distinct()
        with self._transaction() as connection:
            return {row.base_digest: row.base_model for row in connection.execute(query)}

    def adapter_names(self, state: AdapterState | None = None) -> frozenset[str]:
        """The names of the adapters, or of those in a state, without reading the rest of them."""
        query = select(_table.c.name)
        if state is not None:
            query = query.where(_table.c.state == state.value)
        with self._transaction() as connection:
            return frozenset(connection.execute(query).scalars())

    def set_state(
        self,
        name: str,
        state: AdapterState,
        *,
        note: str | None = None,
        expected: Adapter | None = None,
    ) -> Adapter:
        """Put the adapter named `name` into `state`, for the reason `note`, and return it as it now is."""
        change: dict[str, Any] = {"state": state.value, "note": note}
        if state is AdapterState.READY:
            change["measured"] = True
        return self._change(name, expected, change)

    def enable(self, name: str, *, expected: Adapter | None = None) -> Adapter:
        """Put a disabled adapter back: ready where its weights are measured, else pending."""
        with self._revising() as connection:
            found = find_adapter(connection, name, expected=expected)
            if found.state is not AdapterState.DISABLED:
                return found
            query = select(_table.c.measured).where(_table.c.name == name)
            measured = connection.execute(query).scalar_one()
            state = AdapterState.READY if measured else AdapterState.PENDING
            change = {"state": state.value, "note": None} | self._signature()
            connection.execute(update(_table).where(_table.c.name == name).values(change))
            return find_adapter(connection, name)

    def set_tags(self, name: str, tags: Sequence[str], *, expected: Adapter | None = None) -> Adapter:
        """Tag the adapter named `name` with `tags`, in place of those it has, and return it as it now is.

        Raises:
            RegistryError: there is no such adapter, or a tag could not be a name.
        """
        try:
            checked = [check_name(tag) for tag in dict.fromkeys(tags)]
        except ValueError as exc:
            raise RegistryError(f"a tag of {name!r}: {exc}") from exc
        return self._change(name, expected, {"tags": checked})

    def remove_adapter(self, name: str, *, expected: Adapter | None = None) -> Adapter:
        """Forget the adapter named `name` and its pending replacement, and return it as it was.

        Its weights stay in the store, since servers may hold them, and so do its cells: measured again, it costs
        nothing.
        """
        with self._revising() as connection:
            found = find_adapter(connection, name, expected=expected)
            for table in (_table, schema.replacements):
                connection.execute(delete(table).where(table.c.name == name))
            return found

    def _change(self, name: str, expected: Adapter | None, change: dict[str, Any]) -> Adapter:
        with self._revising() as connection:
            find_adapter(connection, name, expected=expected)
            values = change | self._signature()
            connection.execute(update(_table).where(_table.c.name == name).values(values))
            return find_adapter(connection, name)
