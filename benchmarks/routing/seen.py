"""What a router of the benchmark sees, and what it has to be: `fit` on what is seen, then `choose` for requests."""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .protocols import Fold
from .table import OutcomeTable

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Requests:
    """n requests as a router sees them: `marks` (n,), MiniLM embeddings (n, 384), and their rows in the table (n,)."""

    marks: NDArray[np.object_]
    sentence: Array
    rows: Rows

    def __len__(self) -> int:
        return len(self.sentence)

    def take(self, rows: Rows) -> Self:
        """Some of the requests."""
        return type(self)(self.marks[rows], self.sentence[rows], self.rows[rows])


@dataclass(frozen=True)
class Seen:
    """What a router is fitted on: requests with `scores` (n, 1 + a), and what the adapters were trained on.

    Of adapter `new` only the mean gain on each task is known; its scores are those means.
    `known` says whether the tasks asked for later are among these.
    """

    requests: Requests
    tasks: NDArray[np.str_]
    datasets: NDArray[np.str_]
    scores: Array
    table: OutcomeTable
    rows: Rows
    known: bool
    new: int | None = None

    @property
    def gains(self) -> Array:
        """Score of each adapter less the base model's, (n, a)."""
        return self.scores[:, 1:] - self.scores[:, :1]

    @property
    def task_names(self) -> list[str]:
        """The tasks, in their order."""
        return list(dict.fromkeys(self.tasks.tolist()))

    def task_means(self, values: Array) -> Array:
        """Means of `values` (n, ...) over each task, (tasks, ...)."""
        return np.array([values[self.tasks == t].mean(axis=0) for t in self.task_names])

    def take(self, rows: Rows) -> Self:
        """The same of some of the rows."""
        return replace(
            self,
            requests=self.requests.take(rows),
            tasks=self.tasks[rows],
            datasets=self.datasets[rows],
            scores=self.scores[rows],
            rows=self.rows[rows],
        )

    def inner_folds(self, n: int = 3) -> list[tuple[Rows, Rows]]:
        """Rows to fit on and to hold out, to choose settings with."""
        rng = np.random.default_rng(1)
        if self.known:
            part = rng.permutation(len(self.tasks)) % n
        else:
            names = list(dict.fromkeys(self.datasets.tolist()))
            place = dict(zip(names, rng.permutation(len(names)) % n, strict=True))
            part = np.array([place[d] for d in self.datasets])
        return [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(n)]


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


def see(table: OutcomeTable, scores: Array, fold: Fold, *, known: bool) -> tuple[Seen, Requests]:
    """What a router is fitted on in `fold`, and the requests it is then asked about."""
    everything = Requests(table.marks, table.sentence.astype(np.float64), np.arange(len(table)))
    tasks = np.array(table.tasks)[table.task]
    fitted = scores[fold.fit]
    if fold.new is not None:
        fitted = fitted.copy()
        for task in np.unique(tasks[fold.fit]):
            members = tasks[fold.fit] == task
            mean = (fitted[members, 1 + fold.new] - fitted[members, 0]).mean()
            fitted[members, 1 + fold.new] = fitted[members, 0] + mean
    seen = Seen(
        requests=everything.take(fold.fit),
        tasks=tasks[fold.fit],
        datasets=table.dataset[fold.fit],
        scores=fitted,
        table=table,
        rows=fold.fit,
        known=known,
        new=fold.new,
    )
    return seen, everything.take(fold.test)
