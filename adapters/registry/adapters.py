"""The registry's adapters, and the replacements that wait to take over their names."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, delete, func, insert, select, update

from ..adapter import Adapter, AdapterState, check_name, check_not_base
from ..errors import COMPARED, PREFIX, SHOWN, ConflictError, RegistryError, UnknownNameError, did_you_mean_among
from . import schema
from .database import Database

_adapters, _replacements = schema.adapters, schema.replacements
_AGAIN = "read it again and repeat the change"


class AdapterTable(Database):
    """Changes take `expected`, the adapter as the caller read it, and are refused if it was changed since.

    At most one replacement waits for each adapter. Once it is measured, it takes over the name.
    """

    def add_adapter(self, adapter: Adapter, *, replace: bool = False) -> Adapter:
        """Record `adapter` and return it as it is recorded.

        With `replace`, it is put at once in place of one with its name (see also `replace_adapter`).

        Raises:
            RegistryError: the name is taken and `replace` is false, or its serving id is that of other weights.
        """
        with self._revising() as connection:
            row = to_row(adapter) | self._authorship()
            _check_collision(connection, adapter, row["serving_id"])
            same_name = _adapters.c.name == adapter.name
            query = select(_adapters.c.weights_digest, _adapters.c.version).where(same_name)
            old = connection.execute(query).first()
            if old and not replace:
                raise RegistryError(
                    f"an adapter named {adapter.name!r} is there already: choose another name, or replace it"
                )
            connection.execute(delete(_adapters).where(same_name))
            row["measured"] = adapter.state is AdapterState.READY
            if old:
                row["version"] = old.version + (old.weights_digest != adapter.weights_digest)
            connection.execute(insert(_adapters).values(row))
            return adapter.model_copy(update={"version": row["version"]})

    def adapter(self, name: str) -> Adapter:
        """Return the adapter named `name`.

        Raises:
            UnknownNameError: there is none.
        """
        with self._transaction() as connection:
            return _find_adapter(connection, name)

    def adapters(
        self,
        state: AdapterState | None = None,
        *,
        limit: int | None = None,
        since: int | None = None,
        names: Collection[str] | None = None,
        **having: str,
    ) -> list[Adapter]:
        """List the adapters by name; with `state`, only those in it, and only those `having` these values of fields.

        With `since`, a revision, only those that were written after it; with `names`, only those of these names.
        """
        having |= {} if state is None else {"state": state.value}
        wanted = [_adapters.c[field] == value for field, value in having.items()]
        if since is not None:
            wanted.append(_adapters.c.revision > since)
        if names is not None:
            wanted.append(_adapters.c.name.in_(names))
        query = _select().where(*wanted).order_by(_adapters.c.name).limit(limit)
        with self._transaction() as connection:
            return _by_name(connection, query)

    def adapter_names(self, state: AdapterState | None = None) -> frozenset[str]:
        """Return the names of the adapters, or of those in a state, without reading the rest of them."""
        query = select(_adapters.c.name)
        if state is not None:
            query = query.where(_adapters.c.state == state.value)
        with self._transaction() as connection:
            return frozenset(connection.execute(query).scalars())

    def routable_names(self) -> frozenset[str]:
        """Return the names of the adapters that are ready, and get all of the traffic they win."""
        ready = (_adapters.c.state == AdapterState.READY.value) & _adapters.c.canary.is_(None)
        with self._transaction() as connection:
            return frozenset(connection.execute(select(_adapters.c.name).where(ready)).scalars())

    def base_models(self) -> dict[str, str]:
        """Return the names of the base models that adapters are for, by their digests."""
        query = select(_adapters.c.base_digest, _adapters.c.base_model).distinct()
        with self._transaction() as connection:
            return {row.base_digest: row.base_model for row in connection.execute(query)}

    def measured_weights(self, base_digest: str, *, limit: int) -> list[str]:
        """List the digests of the weights of up to `limit` ready adapters for a base model, by the adapters' names."""
        ready = (_adapters.c.state == AdapterState.READY.value) & (_adapters.c.base_digest == base_digest)
        query = select(_adapters.c.weights_digest).where(ready).order_by(_adapters.c.name).limit(limit)
        with self._transaction() as connection:
            return list(connection.execute(query).scalars())

    def holders(self, name: str, digest: str) -> tuple[list[Adapter], list[Adapter]]:
        """List the adapters, and the pending replacements, that have this name or these weights."""
        with self._transaction() as connection:
            adapters, replacements = (
                _by_name(connection, _select(table).where((table.c.name == name) | (table.c.weights_digest == digest)))
                for table in (_adapters, _replacements)
            )
        return adapters, replacements

    def set_state(
        self, name: str, state: AdapterState, *, note: str | None = None, expected: Adapter | None = None
    ) -> Adapter:
        """Put the adapter named `name` into `state`, for the reason `note`, and return it as it now is."""
        change: dict[str, Any] = {"state": state.value, "note": note}
        if state is AdapterState.READY:
            change["measured"] = True
        return self._change(name, expected, change)

    def enable(self, name: str, *, expected: Adapter | None = None) -> Adapter:
        """Enable a disabled adapter: as ready where its weights are measured, else as pending."""
        with self._revising() as connection:
            adapter = _find_adapter(connection, name, expected=expected)
            if adapter.state is not AdapterState.DISABLED:
                return adapter
            measured = connection.execute(select(_adapters.c.measured).where(_adapters.c.name == name)).scalar_one()
            state = AdapterState.READY if measured else AdapterState.PENDING
            self._update(connection, name, {"state": state.value, "note": None})
            return _find_adapter(connection, name)

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

    def set_effect(self, measured: Adapter, effect: float, noise: float) -> None:
        """Record what the weights of `measured` change on the probe, with the adapters and replacements that have them.

        Whose they are may have changed meanwhile, so that there may be none.
        """
        with self._revising() as connection:
            for table in (_adapters, _replacements):
                same = (table.c.name == measured.name) & (table.c.weights_digest == measured.weights_digest)
                connection.execute(update(table).where(same).values(effect=effect, noise=noise))

    def remove_adapter(self, name: str, *, expected: Adapter | None = None) -> Adapter:
        """Remove the adapter named `name` and its pending replacement, and return it as it was.

        Its weights stay in the store, since servers may hold them, and so do its cells: added again, it need not be
        measured again.
        """
        with self._revising() as connection:
            adapter = _find_adapter(connection, name, expected=expected)
            for table in (_adapters, _replacements):
                connection.execute(delete(table).where(table.c.name == name))
            return adapter

    def replace_adapter(self, new: Adapter, *, expected: Adapter | None = None) -> Adapter:
        """Record `new` to take over its name once it is measured, and return it as it is recorded.

        Raises:
            ConflictError: a replacement waits already, or the adapter is no longer as `expected`.
            RegistryError: there is no such adapter, it has these weights already, or is for another base model.
        """
        with self._revising() as connection:
            old = _find_adapter(connection, new.name, expected=expected)
            _check_replaces(connection, old, new)
            change = {"state": AdapterState.PENDING, "tags": old.tags, "version": old.version + 1}
            recorded = new.model_copy(update=change)
            connection.execute(insert(_replacements).values(to_row(recorded) | self._authorship()))
            return recorded

    def replacement(self, name: str) -> Adapter | None:
        """Return the pending replacement of the adapter named `name`, or None."""
        with self._transaction() as connection:
            return _find_replacement(connection, name)

    def replacements(self, **having: str) -> list[Adapter]:
        """List the pending replacements by name, only those `having` these values of fields."""
        wanted = [_replacements.c[field] == value for field, value in having.items()]
        with self._transaction() as connection:
            return _by_name(connection, _select(_replacements).where(*wanted))

    def withdraw_replacement(self, name: str, *, note: str | None = None) -> Adapter:
        """Remove the pending replacement of `name` and return it; `note`, the reason, stays with the adapter.

        Raises:
            RegistryError: there is no such adapter, or nothing waits to replace it.
        """
        with self._revising() as connection:
            _find_adapter(connection, name)
            withdrawn = _find_replacement(connection, name)
            if withdrawn is None:
                raise RegistryError(f"no replacement of {name!r} is pending: none to withdraw")
            connection.execute(delete(_replacements).where(_replacements.c.name == name))
            if note is not None:
                self._update(connection, name, {"note": note})
            return withdrawn

    def _admit_measured(self, connection: Connection, measured: Adapter) -> None:
        """Make measured weights routable: those of the adapter itself, or those that wait to replace them."""
        current = _find_adapter(connection, measured.name)
        replacement = _find_replacement(connection, measured.name)
        if measured.weights_digest == current.weights_digest:
            new = current
        elif replacement and measured.weights_digest == replacement.weights_digest:
            # What was changed while the replacement waited belongs to the name.
            kept = {"state": current.state, "tags": current.tags, "note": current.note, "canary": current.canary}
            new = replacement.model_copy(update=kept)
            connection.execute(delete(_replacements).where(_replacements.c.name == measured.name))
        else:
            raise ConflictError(
                f"the weights measured ({measured.weights_digest[:12]}) are neither those of "
                f"{measured.name!r} nor waiting to replace them: somebody changed it meanwhile, "
                "so measure what is there now"
            )
        row = to_row(new) | {"measured": True}
        # What an administrator disabled stays disabled, and what no server can run stays pending.
        if new.state is not AdapterState.DISABLED:
            row["note"] = None
            row["state"] = (AdapterState.READY if new.vllm_serves else AdapterState.PENDING).value
        self._update(connection, new.name, row)

    def _change(self, name: str, expected: Adapter | None, change: dict[str, Any]) -> Adapter:
        with self._revising() as connection:
            _find_adapter(connection, name, expected=expected)
            self._update(connection, name, change)
            return _find_adapter(connection, name)

    def _update(self, connection: Connection, name: str, change: dict[str, Any]) -> None:
        values = change | self._authorship()
        connection.execute(update(_adapters).where(_adapters.c.name == name).values(values))


def to_row(adapter: Adapter) -> dict[str, Any]:
    """Turn an adapter into the values of its row."""
    return adapter.model_dump() | {"state": adapter.state.value, "serving_id": adapter.serving_id}


def _select(table: Table = _adapters) -> Select[Any]:
    return select(*(table.c[field] for field in Adapter.model_fields))


def _to_adapter(row: Row[Any]) -> Adapter:
    # By position: a row's mapping is built for each row, which takes longer than the checks.
    return Adapter.model_validate(dict(zip(Adapter.model_fields, row, strict=True)))


def _by_name(connection: Connection, query: Select[Any]) -> list[Adapter]:
    # Sorted here, for databases differ in how they sort text.
    return sorted(map(_to_adapter, connection.execute(query)), key=lambda adapter: adapter.name)


def _find_adapter(connection: Connection, name: str, *, expected: Adapter | None = None) -> Adapter:
    """Return the adapter named `name`.

    Raises:
        UnknownNameError: there is none; the message suggests a similar name.
        ConflictError: it is no longer as `expected`.
    """
    try:
        check_name(name)
    except ValueError as exc:
        # Not looked up: PostgreSQL reports some characters as an error of the database.
        raise UnknownNameError(f"no adapter has such a name: {exc}") from exc
    row = connection.execute(_select().where(_adapters.c.name == name)).first()
    if row is None:
        raise UnknownNameError(_unknown(connection, name))
    adapter = _to_adapter(row)
    if expected is not None and adapter != expected:
        raise ConflictError(f"{name!r} {_last_change(connection, _adapters, name)}: {_AGAIN}")
    return adapter


def _find_replacement(connection: Connection, name: str) -> Adapter | None:
    row = connection.execute(_select(_replacements).where(_replacements.c.name == name)).first()
    return None if row is None else _to_adapter(row)


def _check_collision(connection: Connection, adapter: Adapter, serving_id: int) -> None:
    """Refuse the base model's name, and a serving id of other weights, even those of the adapter being replaced."""
    try:
        check_not_base(adapter.name, adapter.base_model)
    except ValueError as exc:
        raise RegistryError(str(exc)) from exc
    for table in (_adapters, _replacements):
        query = select(table.c.name).where(
            table.c.serving_id == serving_id, table.c.weights_digest != adapter.weights_digest
        )
        if other := connection.execute(query).scalars().first():
            raise RegistryError(
                f"serving id collision: the weights of {adapter.name!r} and {other!r} differ, but "
                f"both map to id {serving_id}; train again, for any changed byte gives another id"
            )


def _check_replaces(connection: Connection, old: Adapter, new: Adapter) -> None:
    if _find_replacement(connection, new.name) is not None:
        change = _last_change(connection, _replacements, new.name)
        raise ConflictError(
            f"a replacement of {new.name!r} {change} and is not measured yet: wait for it, or withdraw it first"
        )
    if new.weights_digest == old.weights_digest:
        raise RegistryError(f"{old.name!r} has these weights already: nothing to replace")
    if new.base_digest != old.base_digest:
        raise RegistryError(
            f"{old.name!r} is an adapter for {old.base_model}, its replacement one for "
            f"{new.base_model}: add it under another name"
        )
    _check_collision(connection, new, new.serving_id)


def _last_change(connection: Connection, table: Table, name: str) -> str:
    query = select(table.c.changed_at, table.c.changed_by).where(table.c.name == name)
    row = connection.execute(query).one()
    when = f" at {row.changed_at:%Y-%m-%d %H:%M:%S} UTC" if row.changed_at else ""
    return f"was changed{when} by {row.changed_by or 'somebody else'}"


def _unknown(connection: Connection, name: str) -> str:
    column = _adapters.c.name
    total = connection.execute(select(func.count()).select_from(_adapters)).scalar_one()
    if not total:
        return f"no adapter named {name!r}: the registry holds none yet, so add one first"
    names = select(column).order_by(column)
    near = names if total <= COMPARED else names.where(func.substr(column, 1, PREFIX) == name[:PREFIX])
    similar = connection.execute(near.limit(COMPARED)).scalars().all()
    shown = connection.execute(names.limit(SHOWN)).scalars().all()
    return f"no adapter named {name!r}{did_you_mean_among(name, similar, shown=sorted(shown), total=total)}"
