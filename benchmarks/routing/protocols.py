"""The protocols of the routing benchmark: what may be fitted on, and what is scored.

Nothing that is asked of a data set is in `fit` while the data set is held out, and no data row is in both
`fit` and `test`, in whatever words it is asked. Settings are chosen by each router inside `fit` alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .table import OutcomeTable

Rows = NDArray[np.intp]
FOLDS = 5


@dataclass(frozen=True)
class Fold:
    """Rows to fit on and to score; of adapter `new` only the mean gain on each task fitted on is known."""

    fit: Rows
    test: Rows
    new: int | None = None


def folds(table: OutcomeTable, protocol: str) -> Iterator[Fold]:
    """The folds of a protocol; see PROTOCOLS."""
    return PROTOCOLS[protocol](table)


def _pool(table: OutcomeTable) -> NDArray[np.bool_]:
    return np.isin(table.kind, ["main", "probe"])


def _fold(table: OutcomeTable, fit: NDArray[np.bool_], test: Rows, new: int | None = None) -> Fold:
    apart = ~np.isin(table.row, table.row[test])
    return Fold(np.flatnonzero(fit & apart), test, new)


def in_distribution(table: OutcomeTable) -> Iterator[Fold]:
    """New examples of profiled tasks: a fifth of each task's rows at a time."""
    rng = np.random.default_rng(0)
    part = np.empty(len(table), dtype=int)
    for task in np.unique(table.task):
        members = np.flatnonzero(table.task == task)
        part[members] = rng.permutation(len(members)) % FOLDS
    main = table.kind == "main"
    for k in range(FOLDS):
        yield _fold(table, _pool(table), np.flatnonzero(main & (part == k)))


def unseen_loto(table: OutcomeTable) -> Iterator[Fold]:
    """A data set at a time left out, with everything asked of it."""
    for name in dict.fromkeys(table.datasets):
        test = np.flatnonzero((table.dataset == name) & (table.kind == "main"))
        yield _fold(table, _pool(table) & (table.dataset != name), test)


def unseen_sources_only(table: OutcomeTable) -> Iterator[Fold]:
    """Fitted on the adapters' own data sets, scored on all others."""
    source = np.isin(table.dataset, table.adapters)
    test = np.flatnonzero(~source & (table.kind == "main"))
    yield _fold(table, _pool(table) & source, test)


def new_adapter(table: OutcomeTable) -> Iterator[Fold]:
    """An adapter at a time that the router was not fitted on, on new examples of profiled tasks."""
    for new in range(len(table.adapters)):
        for fold in list(in_distribution(table))[:2]:
            yield Fold(fold.fit, fold.test, new)


def paraphrase(table: OutcomeTable) -> Iterator[Fold]:
    """Known tasks in other words and layouts, on other rows."""
    yield _fold(table, _pool(table), np.flatnonzero(table.kind == "reworded"))


def agent(table: OutcomeTable) -> Iterator[Fold]:
    """Known tasks as agents send them: system prompts with tools, earlier turns, long contexts."""
    agents = np.flatnonzero(np.isin(table.kind, ["tools", "turns", "long"]))
    yield _fold(table, _pool(table), agents)


def confirmation(table: OutcomeTable) -> Iterator[Fold]:
    """Generated tasks that nobody looked at while the router was designed."""
    yield _fold(table, _pool(table), np.flatnonzero(table.kind == "confirmation"))


PROTOCOLS = {
    f.__name__: f
    for f in (
        in_distribution,
        unseen_loto,
        unseen_sources_only,
        new_adapter,
        paraphrase,
        agent,
        confirmation,
    )
}
