"""Measured cells of the transfer matrix, with their outcomes for each example, and the tasks, in the registry."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save
from sqlalchemy import delete, select

from . import schema
from .database import Database, add, put

_KEYS_A_QUERY = 500


class FinishReason(IntEnum):
    """Why a generation ended: the model stopped by itself, or reached the token limit."""

    STOP = 0
    LENGTH = 1


@dataclass(frozen=True)
class Outcomes:
    """What one adapter did on each of a task's `n` test examples, in the task's order.

    Shapes are (n,) unless stated otherwise. `score` is what the task's metric gives, in [0, 1]; `strict` and `lenient`
    say whether the answer was right as asked for, and right anywhere. `predicted_label` is an index into the task's
    labels, or -1 where the output names none; `label_probabilities` has shape (n, labels), and (n, 0) for tasks without
    labels. `log_likelihood` is the sum of natural-log probabilities of the gold answer's `target_tokens` tokens.
    `output_digest` is a 64-bit hash of each output text, which shows whether two adapters answered alike; where the
    task's metric compares their answers, of what it compares. The texts themselves are kept only where a suite asks for
    them, as UTF-8 bytes end to end; text i ends before `text_ends[i]`. The base model's cell of a task that is scored
    by votes holds these: `votes`, of shape (n, voters), are digests of the answers of `voters`, of shape (voters,).
    """

    strict: NDArray[np.bool_]
    lenient: NDArray[np.bool_]
    score: NDArray[np.float32]
    parse_failure: NDArray[np.bool_]
    log_likelihood: NDArray[np.float32]
    target_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    finish_reason: NDArray[np.uint8]
    predicted_label: NDArray[np.int32]
    output_digest: NDArray[np.uint64]
    label_probabilities: NDArray[np.float32]
    text_bytes: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    text_ends: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    votes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 0), np.uint64))
    voters: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))

    def __len__(self) -> int:
        return len(self.strict)

    @property
    def texts(self) -> list[str] | None:
        """What the adapter wrote on each example, or None where it was not kept."""
        if len(self.text_ends) != len(self):
            return None
        whole = self.text_bytes.tobytes()
        starts = [0, *self.text_ends[:-1]]
        return [whole[a:b].decode() for a, b in zip(starts, self.text_ends, strict=True)]

    def to_bytes(self) -> bytes:
        """Serialise as safetensors, one tensor a field."""
        return save({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        return cls(**load(data))


@dataclass(frozen=True)
class Cell:
    """The outcomes of `adapter` (None: the base model) on `task`.

    `key` is the digest of everything that determines the result (base model, weights, task and settings), so a cell
    with the same key need not be measured again.
    """

    key: str
    adapter: str | None
    task: str
    outcomes: Outcomes


def packed_texts(texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the fields of `Outcomes` that hold `texts`."""
    parts = [text.encode() for text in texts]
    return {
        "text_bytes": np.frombuffer(b"".join(parts), np.uint8),
        "text_ends": np.cumsum([len(part) for part in parts], dtype=np.int64),
    }


class CellTable(Database):
    """Tasks and measured cells; writing them does not change the revision."""

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
        with self._writing() as connection:
            put(connection, schema.cells, _row(cell))

    def add_cell(self, cell: Cell) -> Cell:
        """Record a measured cell unless there is one with its key, and return the one that is there then."""
        with self._writing() as connection:
            added = add(connection, schema.cells, _row(cell))
        return cell if added else self.find_cell(cell.key) or cell

    def remove_cells(self, keys: Collection[str]) -> None:
        """Remove the cells with these keys; unknown keys are ignored."""
        with self._writing() as connection:
            for key in keys:
                connection.execute(delete(schema.cells).where(schema.cells.c.key == key))

    def find_cell(self, key: str) -> Cell | None:
        """Return the cell with this key, or None where it was not measured."""
        return next(iter(self.cells(keys=[key])), None)

    def cells(self, *, keys: Collection[str] | None = None) -> list[Cell]:
        """List the cells by adapter (the base model first) and task; with `keys`, only those."""
        query = select(schema.cells)
        wanted = sorted(set(keys or ()))
        batches = [wanted[i : i + _KEYS_A_QUERY] for i in range(0, len(wanted), _KEYS_A_QUERY)]
        queries = [query.where(schema.cells.c.key.in_(batch)) for batch in batches]
        with self._transaction() as connection:
            cells = [
                Cell(row.key, row.adapter, row.task, Outcomes.from_bytes(row.outcomes))
                for each in ([query] if keys is None else queries)
                for row in connection.execute(each)
            ]
        return sorted(cells, key=_cell_order)

    def cell_keys(self) -> dict[str, str | None]:
        """Every cell's adapter (None: the base model) by the cell's key, without reading outcomes."""
        query = select(schema.cells.c.key, schema.cells.c.adapter)
        with self._transaction() as connection:
            return {row.key: row.adapter for row in connection.execute(query)}


def _row(cell: Cell) -> dict[str, Any]:
    return {"key": cell.key, "adapter": cell.adapter, "task": cell.task, "outcomes": cell.outcomes.to_bytes()}


def _cell_order(cell: Cell) -> tuple[str, str, str]:
    return (cell.adapter or "", cell.task, cell.key)
