"""The registry: one SQLite file with adapters, tasks, measured cells and fitted profiles.

The weights lie beside it in `<file stem>.weights/`. Nothing here is SQLite's own SQL; what is lies
in `schema`. Writers of adapters and profiles first raise the revision, which on any database makes
them queue for that row, so what they then read stays true until they commit.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Table, delete, insert, select, update
from sqlalchemy.exc import DatabaseError

from . import schema
from .adapter import Adapter, AdapterState, check_name
from .adapter_rows import check_collision, find_adapter, select_adapters, to_adapter, to_row
from .cell import Cell, Outcomes
from .errors import RegistryError
from .weights import WeightStore

_KEYS_A_QUERY = 500
_LONGEST_LABEL = 80


@dataclass(frozen=True)
class CellScore:
    """A cell without its outcomes: quick to list."""

    key: str
    adapter: str | None
    task: str
    score: float


@dataclass(frozen=True)
class StoredProfile:
    """One version of a fitted profile: safetensors bytes and a JSON summary."""

    version: int
    data: bytes
    summary: dict[str, Any]
    created_at: datetime


class Registry:
    """Adapters, tasks, cells and profiles in one file; safe to use from several threads."""

    def __init__(self, engine: Engine, path: Path, *, read_only: bool) -> None:
        """Use `create` or `open` instead, which check the file."""
        self.path = path
        self.weights = WeightStore(path.with_name(f"{path.stem}.weights"))
        self._engine = engine
        self._read_only = read_only

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open the registry at `path`, making an empty one where there is no file."""
        if not path.exists():
            schema.create_file(path.resolve())
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open the registry at `path`.

        Raises:
            RegistryError: there is no such file, it is not a registry, or its schema is newer.
        """
        path = path.resolve()
        return cls(schema.open_engine(path, read_only=read_only), path, read_only=read_only)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def revision(self) -> int:
        """Return a number that changes with every write to adapters or profiles; cheap to poll."""
        with self._transaction() as connection:
            return connection.execute(select(schema.meta.c.revision)).scalar_one()

    def add_adapter(self, adapter: Adapter, *, replace: bool = False) -> None:
        """Record `adapter`.

        Raises:
            RegistryError: the name is taken and `replace` is false, or its serving id is that of
                other weights.
        """
        table = schema.adapters
        with self._revising() as connection:
            check_collision(connection, adapter)
            same_name = table.c.name == adapter.name
            if replace:
                connection.execute(delete(table).where(same_name))
            elif connection.execute(select(table.c.name).where(same_name)).first():
                raise RegistryError(
                    f"an adapter named {adapter.name!r} is there already: "
                    "choose another name, or replace it"
                )
            connection.execute(insert(table).values(to_row(adapter)))

    def adapter(self, name: str) -> Adapter:
        """Return the adapter named `name`.

        Raises:
            RegistryError: there is none.
        """
        with self._transaction() as connection:
            return find_adapter(connection, name)

    def adapters(self, state: AdapterState | None = None) -> list[Adapter]:
        """List the adapters by name; with `state`, only those in it."""
        query = select_adapters().order_by(schema.adapters.c.name)
        if state is not None:
            query = query.where(schema.adapters.c.state == state.value)
        with self._transaction() as connection:
            return [to_adapter(row) for row in connection.execute(query)]

    def servable(self) -> list[Adapter]:
        """List the adapters that a vLLM server may load: not disabled, and of a method it runs."""
        return [
            a for a in self.adapters() if a.vllm_serves and a.state is not AdapterState.DISABLED
        ]

    def set_state(self, name: str, state: AdapterState) -> Adapter:
        """Put the adapter named `name` into `state` and return it as it now is."""
        table = schema.adapters
        with self._revising() as connection:
            connection.execute(update(table).where(table.c.name == name).values(state=state.value))
            return find_adapter(connection, name)

    def set_tags(self, name: str, tags: Sequence[str]) -> Adapter:
        """Tag the adapter named `name` with `tags`, in place of those it has, and return it as it now is.

        Raises:
            RegistryError: there is no such adapter, or a tag could not be a name.
        """
        table = schema.adapters
        try:
            checked = [check_name(tag) for tag in dict.fromkeys(tags)]
        except ValueError as exc:
            raise RegistryError(f"a tag of {name!r}: {exc}") from exc
        with self._revising() as connection:
            connection.execute(update(table).where(table.c.name == name).values(tags=checked))
            return find_adapter(connection, name)

    def put_task(self, name: str, digest: str, spec: dict[str, Any]) -> None:
        """Record a task, in place of an earlier one with this name; `spec` must be JSON."""
        with self._writing() as connection:
            _put(connection, schema.tasks, {"name": name, "digest": digest, "spec": spec})

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return every task's spec by the task's name."""
        query = select(schema.tasks.c.name, schema.tasks.c.spec).order_by(schema.tasks.c.name)
        with self._transaction() as connection:
            return {row.name: row.spec for row in connection.execute(query)}

    def task_digests(self) -> dict[str, str]:
        """Return every task's digest by the task's name."""
        query = select(schema.tasks.c.name, schema.tasks.c.digest).order_by(schema.tasks.c.name)
        with self._transaction() as connection:
            return {row.name: row.digest for row in connection.execute(query)}

    def put_cell(self, cell: Cell) -> None:
        """Record a measured cell, in place of an earlier one with its key."""
        row = {
            "key": cell.key,
            "adapter": cell.adapter,
            "task": cell.task,
            "score": cell.score,
            "outcomes": cell.outcomes.to_bytes(),
        }
        with self._writing() as connection:
            _put(connection, schema.cells, row)

    def remove_cells(self, keys: Collection[str]) -> None:
        """Forget the cells with these keys; keys of no cell are passed over."""
        with self._writing() as connection:
            for key in keys:
                connection.execute(delete(schema.cells).where(schema.cells.c.key == key))

    def find_cell(self, key: str) -> Cell | None:
        """Return the cell with this key, or None where it was not measured."""
        found = self.cells(keys=[key])
        return found[0] if found else None

    def cells(self, *, keys: Collection[str] | None = None) -> list[Cell]:
        """List the cells by adapter (the base model first) and task; with `keys`, only those."""
        query = select(schema.cells)
        wanted = sorted(set(keys or ()))
        batches = [wanted[i : i + _KEYS_A_QUERY] for i in range(0, len(wanted), _KEYS_A_QUERY)]
        queries = [query.where(schema.cells.c.key.in_(batch)) for batch in batches]
        with self._transaction() as connection:
            found = [
                Cell(row.key, row.adapter, row.task, Outcomes.from_bytes(row.outcomes))
                for each in ([query] if keys is None else queries)
                for row in connection.execute(each)
            ]
        return sorted(found, key=_cell_order)

    def cell_scores(self) -> list[CellScore]:
        """List every cell's score in the order of `cells`, without reading outcomes."""
        columns = schema.cells.c
        query = select(columns.key, columns.adapter, columns.task, columns.score)
        with self._transaction() as connection:
            scores = [CellScore(**row._mapping) for row in connection.execute(query)]
        return sorted(scores, key=_cell_order)

    def put_profile(self, data: bytes, summary: dict[str, Any]) -> int:
        """Keep a fitted profile as a new version and return its number."""
        row = {"data": data, "summary": summary, "created_at": datetime.now(UTC)}
        with self._revising() as connection:
            query = insert(schema.profiles).values(row).returning(schema.profiles.c.version)
            return connection.execute(query).scalar_one()

    def profile(self, version: int) -> StoredProfile:
        """Return one version of the profile.

        Raises:
            RegistryError: there is no such version.
        """
        query = select(schema.profiles).where(schema.profiles.c.version == version)
        with self._transaction() as connection:
            row = connection.execute(query).first()
        if row is None:
            known = ", ".join(map(str, self.profile_versions())) or "none yet"
            raise RegistryError(f"no profile version {version}; versions: {known}")
        return StoredProfile(**row._mapping)

    def latest_profile(self) -> StoredProfile | None:
        """Return the newest profile, or None where none was fitted."""
        query = select(schema.profiles).order_by(schema.profiles.c.version.desc()).limit(1)
        with self._transaction() as connection:
            row = connection.execute(query).first()
        return None if row is None else StoredProfile(**row._mapping)

    def profile_versions(self) -> list[int]:
        """List the profile versions, oldest first."""
        version = schema.profiles.c.version
        with self._transaction() as connection:
            return list(connection.execute(select(version).order_by(version)).scalars())

    def set_trait_label(self, version: int, index: int, label: str) -> None:
        """Call component `index` (from 1) of a profile version `label`; an empty label removes it.

        Kept in the profile's summary under "trait_labels".

        Raises:
            RegistryError: there is no such version or component, or the label is longer than 80
                characters or has some that do not print.
        """
        label = _checked_label(label)
        table = schema.profiles
        with self._revising() as connection:
            query = select(table.c.summary).where(table.c.version == version)
            summary = connection.execute(query).scalar_one_or_none()
            if summary is None:
                versions = ", ".join(map(str, self.profile_versions())) or "none yet"
                raise RegistryError(f"no profile version {version}; versions: {versions}")
            known = len(summary.get("loadings", ()))
            if not 1 <= index <= known:
                raise RegistryError(
                    f"profile version {version} has no component {index}: it has {known}, "
                    "counted from 1"
                )
            labels = {**summary.get("trait_labels", {}), str(index): label}
            summary["trait_labels"] = {i: kept for i, kept in labels.items() if kept}
            change = update(table).where(table.c.version == version)
            connection.execute(change.values(summary=summary))

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DatabaseError as exc:
            raise RegistryError(
                f"{self.path}: {exc.orig}; check free space and permissions, "
                "and that no other process holds it locked"
            ) from exc

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if self._read_only:
            raise RegistryError(f"{self.path} was opened read-only: open it for writing")
        with self._transaction() as connection:
            yield connection

    @contextmanager
    def _revising(self) -> Iterator[Connection]:
        with self._writing() as connection:
            connection.execute(update(schema.meta).values(revision=schema.meta.c.revision + 1))
            yield connection


def _put(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    """Insert `row`, in place of an earlier one with its primary key."""
    (key,) = table.primary_key
    connection.execute(delete(table).where(key == row[key.name]))
    connection.execute(insert(table).values(row))


def _checked_label(label: str) -> str:
    label = label.strip()
    if len(label) > _LONGEST_LABEL or not label.isprintable():
        raise RegistryError(
            f"{label[:_LONGEST_LABEL]!r} cannot be a trait's label: "
            f"use 1 to {_LONGEST_LABEL} printable characters, or none to remove the label"
        )
    return label


def _cell_order(cell: Cell | CellScore) -> tuple[str, str, str]:
    return (cell.adapter or "", cell.task, cell.key)
