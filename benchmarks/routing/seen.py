"""What a router of the benchmark sees, and what it has to be: `fit` on what is seen, then `choose` for requests."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from .protocols import Fold, LeftOut, item_parts, parts, wording_parts
from .table import OutcomeTable

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
T = TypeVar("T")
INNER = 5


@dataclass(frozen=True, eq=False)
class Requests:
    """n requests as a router sees them: `marks` (n,), MiniLM embeddings (n, 384), and their rows in the table (n,)."""

    marks: NDArray[np.object_]
    sentence: Array
    rows: Rows
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.sentence)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, computed once: scores differ, the requests are the same."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def take(self, rows: Rows) -> Self:
        """Some of the requests."""
        return self.once(
            ("take", rows.tobytes()), lambda: type(self)(self.marks[rows], self.sentence[rows], self.rows[rows])
        )


@dataclass(frozen=True, eq=False)
class Seen:
    """What a router is fitted on: requests with `scores` (n, 1 + a), and what the adapters were trained on.

    Of adapter `new` only the mean gain on each data set is known; its scores are base's plus those means. The table's
    training rows are those that are known. `left_out` says in what the requests asked later differ from these, and
    `asked` names their groups, so that nothing that ships with a router need be of them.
    """

    requests: Requests
    datasets: NDArray[np.str_]
    groups: NDArray[np.str_]
    wordings: NDArray[np.int16]
    items: NDArray[np.uint64]
    scores: Array
    table: OutcomeTable
    rows: Rows
    left_out: LeftOut = "rows"
    asked: frozenset[str] = frozenset()
    new: int | None = None
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def gains(self) -> Array:
        """Score of each adapter less the base model's, (n, a)."""
        return self.scores[:, 1:] - self.scores[:, :1]

    @property
    def tasks(self) -> NDArray[np.str_]:
        """The table's task of each request, (n,): a data set, or what was made of one."""
        return np.array(self.table.tasks)[self.table.task[self.rows]]

    @property
    def task_names(self) -> list[str]:
        """The tasks, in their order."""
        return list(dict.fromkeys(self.tasks.tolist()))

    def task_means(self, values: Array) -> Array:
        """Means of `values` (n, ...) over each task, (tasks, ...)."""
        tasks = self.tasks
        return np.array([values[tasks == t].mean(axis=0) for t in self.task_names])

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, computed once for these scores."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    @property
    def alike(self) -> NDArray[np.bool_]:
        """Whether an adapter does on a request as on those asked, (n, a): with homes left out, not at home."""
        alike = np.ones((len(self.rows), len(self.table.adapters)), bool)
        if self.left_out == "homes":
            group_of = dict(zip(self.table.datasets, self.table.groups, strict=True))
            for i, names in enumerate(self.table.homes):
                alike[:, i] = ~np.isin(self.groups, [group_of[n] for n in names if n in group_of])
        return alike

    def take(self, rows: Rows) -> Self:
        """The same of some of the rows."""
        names = ("datasets", "groups", "wordings", "items", "scores", "rows")
        taken: dict[str, Any] = {name: getattr(self, name)[rows] for name in names}
        return replace(self, requests=self.requests.take(rows), memo={}, **taken)

    def inner_folds(self, n: int = INNER) -> list[tuple[Rows, Rows]]:
        """Rows to fit on and to hold out, to choose settings with: what is left out of each is what will be asked."""
        return self.requests.once(("inner folds", n), lambda: self._inner_folds(n))

    def _inner_folds(self, n: int) -> list[tuple[Rows, Rows]]:
        rng = np.random.default_rng(1)
        if self.left_out == "rows":
            part = item_parts(self.datasets, self.items, n, rng)
        elif self.left_out == "wordings":
            part = wording_parts(self.datasets, self.wordings, n, rng)
        else:
            part = parts(self.groups, n, rng)
        found = []
        for k in range(n):
            outside = part == k
            inside = ~outside & ~np.isin(self.items, self.items[outside])
            if inside.any() and outside.any():
                found.append((np.flatnonzero(inside), np.flatnonzero(outside)))
        return found


class Router(Protocol):
    """A way of choosing; `fit` returns what is fitted, so that one object serves all folds."""

    def fit(self, seen: Seen) -> "Fitted":
        """Fit on `seen`."""
        ...


class Fitted(Protocol):
    """A fitted router."""

    def choose(self, requests: Requests) -> Rows:
        """The column chosen for each request: 0 the base model, 1 + i adapter i."""
        ...


def see(table: OutcomeTable, scores: Array, fold: Fold) -> tuple[Seen, Requests]:
    """What a router is fitted on in `fold`, and the requests it is then asked about."""
    everything = Requests(table.marks, table.sentence.astype(np.float64), np.arange(len(table)))
    seen = Seen(
        requests=everything.take(fold.fit),
        datasets=table.dataset[fold.fit],
        groups=table.group[fold.fit],
        wordings=table.wording[fold.fit],
        items=table.row[fold.fit],
        scores=known_scores(table, scores, fold),
        table=_without_training_rows(table, fold.untrained),
        rows=fold.fit,
        left_out=fold.left_out,
        asked=frozenset(table.group[fold.test].tolist()),
        new=fold.new,
    )
    return seen, everything.take(fold.test)


def known_scores(table: OutcomeTable, scores: Array, fold: Fold) -> Array:
    """The scores of the rows fitted on, (n, 1 + a): of a new adapter base's plus its mean gain on each data set."""
    fitted = scores[fold.fit]
    if fold.new is None:
        return fitted
    column = 1 + fold.new
    gains, task, rng = fitted[:, column] - fitted[:, 0], table.task[fold.fit], np.random.default_rng(fold.new)
    fitted = fitted.copy()
    for each in np.unique(task):
        members = np.flatnonzero(task == each)
        measured = members if fold.new_rows is None else rng.permutation(members)[: fold.new_rows]
        fitted[members, column] = fitted[members, 0] + gains[measured].mean()
    return fitted


def _without_training_rows(table: OutcomeTable, adapters: tuple[int, ...]) -> OutcomeTable:
    if not adapters:
        return table
    kept = ~np.isin(table.source_adapter, adapters)
    names = [f.name for f in fields(table) if f.name.startswith("source_") and f.name != "source_digest"]
    return replace(table, **{name: getattr(table, name)[kept] for name in names})
