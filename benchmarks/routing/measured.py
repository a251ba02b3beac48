"""What of the routing benchmark's plan is measured: cells in a work folder, and in a table that was begun elsewhere.

A cell of the table counts where its task is asked and judged as in the plan, and its adapter was trained on the same
rows by the same recipe on the same base model. So another machine goes on from a committed table, and trains only the
adapters of which something is still to be measured. Where that gives other weights, as it does where a processor rounds
otherwise, the adapter is measured anew: of one adapter nothing is mixed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from traitroute.adapters import InputError, Outcomes
from traitroute.profiling import BaseModelFolder, Task, open_base_model
from traitroute.profiling.training import RECORD, training_key

from .lenient import holds_answer
from .plan import Asked, Plan, Source, cell_file, read_cell
from .table import COLUMNS, OutcomeTable, load

Columns = Mapping[str, NDArray[Any]]
"""What a cell gives to the columns of the table, (rows,) each."""


@dataclass(frozen=True)
class Measured:
    """The cells of `plan` that are in the folder `work` or in `table`."""

    plan: Plan
    work: Path
    base: BaseModelFolder
    table: OutcomeTable | None

    @classmethod
    def read(cls, plan: Plan, work: Path, file: Path) -> Self:
        """What is in the work folder and, where it is there, in the table `file`.

        Raises:
            InputError: the table is of another plan, or the work folder has cells of adapters trained otherwise.
            SystemExit: the file is no table.
        """
        found = cls(plan, work, open_base_model(plan.base_model), load(file) if file.is_file() else None)
        if found.table is not None and not found._of_plan(found.table):
            raise InputError(
                f"{file} has nothing that this plan measures on {plan.base_model}: it is of other data sets, other "
                "sizes or another base model; name another file with --out, or remove it to begin anew"
            )
        for source in plan.sources:
            found._check(source)
        return found

    def cell(self, source: Source | None, asked: Asked) -> Columns | None:
        """The cell of the adapter trained on `source` (None: of base), or None where it is still to be measured."""
        file = self._file(source, asked)
        if file.is_file():
            return columns(asked, read_cell(file))
        key = self.keys[source.name] if source else None
        task, column = self._tasks.get(asked.digest), self._columns.get(key)
        if self.table is None or task is None or column is None:
            return None
        if source and self.weights.get(source.name) not in (None, self.table.weights[column - 1]):
            return None
        rows = np.flatnonzero(self.table.task == task)
        if not self.table.measured[rows, column].all():
            return None
        return {name: getattr(self.table, name)[rows, column] for name in COLUMNS}

    def waiting(self, source: Source | None) -> list[Asked]:
        """What is still to be measured with the adapter trained on `source` (None: with base)."""
        return [a for a in self.plan.asked if not self._file(source, a).is_file() and self.cell(source, a) is None]

    @cached_property
    def keys(self) -> dict[str, str]:
        """The training key of each adapter of the plan."""
        return {s.name: training_key(s, self.base, self.plan.training) for s in self.plan.sources}

    @cached_property
    def weights(self) -> dict[str, str]:
        """The digest of the weights of each adapter that was trained in the work folder."""
        files = {s.name: self.work / "runs" / s.name / "adapter_model.safetensors" for s in self.plan.sources}
        return {n: hashlib.sha256(f.read_bytes()).hexdigest() for n, f in files.items() if f.is_file()}

    def weights_of(self, source: Source) -> str:
        """The digest of the weights that its cells are of; "" where nobody noted it."""
        column = self._columns.get(self.keys[source.name])
        noted = self.table.weights[column - 1] if self.table and column else ""
        return self.weights.get(source.name, noted)

    @cached_property
    def _tasks(self) -> dict[str, int]:
        return {d: i for i, d in enumerate(self.table.task_digests)} if self.table else {}

    @cached_property
    def _columns(self) -> dict[str | None, int]:
        return {key: i for i, key in enumerate((None, *self.table.trained))} if self.table else {}

    def _file(self, source: Source | None, asked: Asked) -> Path:
        return cell_file(self.work, source and source.name, asked)

    def _of_plan(self, table: OutcomeTable) -> bool:
        return table.source_digest == self.base.digest and any(a.digest in self._tasks for a in self.plan.asked)

    def _check(self, source: Source) -> None:
        cells = self.work / "cells" / source.name
        if not any(cells.glob("*.safetensors")):
            return
        record = self.work / "runs" / source.name / RECORD
        if not record.is_file() or json.loads(record.read_text())["key"] != self.keys[source.name]:
            raise InputError(
                f"{cells} was measured with an adapter trained on other rows or by another recipe than this plan's: "
                "name another folder with --work, or remove that one to measure the adapter anew"
            )


def columns(asked: Asked, cell: Outcomes) -> Columns:
    """What the table keeps of a cell."""
    texts = cell.texts
    return {
        "strict": cell.strict,
        "lenient": cell.strict | holds_answer(asked, texts) if asked.answers and texts else cell.lenient,
        "metric": cell.score,
        "likelihood": cell.log_likelihood / np.maximum(cell.target_tokens, 1),
        "gold_probability": _gold_probability(asked.task, cell),
        "output_tokens": cell.output_tokens,
    }


def _gold_probability(task: Task, cell: Outcomes) -> NDArray[np.float32]:
    if not cell.label_probabilities.shape[1]:
        return np.full(len(cell), np.nan, np.float32)
    gold = [task.labels.index(e.answer) for e in task.test_examples]
    return cell.label_probabilities[np.arange(len(cell)), gold]
