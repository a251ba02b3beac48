"""The registry's tasks and measured cells."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select

from ..cell import Cell, Outcomes
from . import tables as schema
from .database import Database, put

_KEYS_A_QUERY = 500


@dataclass(frozen=True)
class CellScore:
    """A cell without its outcomes: quick to list."""

    key: str
    adapter: str | None
    task: str
    score: float


class CellTable(Database):
    """What was measured, and on which tasks; writing it does not change the revision."""

    def put_task(self, name: str, digest: str, spec: dict[str, Any]) -> None:
        """Record a task, in place of an earlier one with this name; `spec` must be JSON."""
        with self._writing() as connection:
            put(connection, schema.tasks, {"name": name, "digest": digest, "spec": spec})

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return every task's spec by the task's name."""
        query = select(schema.tasks.c.name, schema.tasks.c.spec)
        with self._transaction() as connection:
            return dict(sorted((row.name, row.spec) for row in connection.execute(query)))

    def task_digests(self) -> dict[str, str]:
        """Return every task's digest by the task's name."""
        query = select(schema.tasks.c.name, schema.tasks.c.digest)
        with self._transaction() as connection:
            return dict(sorted((row.name, row.digest) for row in connection.execute(query)))

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
            put(connection, schema.cells, row)

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


def _cell_order(cell: Cell | CellScore) -> tuple[str, str, str]:
    return (cell.adapter or "", cell.task, cell.key)
