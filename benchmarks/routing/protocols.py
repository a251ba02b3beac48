"""The protocols of the routing benchmark: what may be fitted on, and what is scored.

Groups of data sets that are alike are split once, by a hash of their names: a router is designed looking at two
thirds of them, and confirmed on the others. Every protocol fits and tests on the former; its namesake `confirm_...`
fits on them too, and tests on the latter, of which it fits on other rows where the protocol is about rows, wordings
or adapters. No item is in both `fit` and `test`, in whatever words it is asked.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .table import OutcomeTable

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]
LeftOut = Literal["rows", "wordings", "groups", "homes"]
"""What is new in the requests asked, at the most: baselines choose their settings by leaving out the same. With `homes`
left out, groups are new, and no adapter was trained on them.
"""
FOLDS = 5
WORDING_FOLDS = 4
GROUP_FOLDS = 10
TENTH = 4
"""Rows of a data set behind the mean gains of a new adapter that is measured on a tenth."""
AGENT_KINDS = ("tools", "turns", "long")
CONFIRM = "confirm_"


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to fit on and to score.

    Of adapter `new` only the mean gain on each data set fitted on is known, from `new_rows` rows of it (None: all).
    Nothing is known of what the adapters `untrained` were trained on.
    """

    fit: Rows
    test: Rows
    left_out: LeftOut = "rows"
    new: int | None = None
    new_rows: int | None = None
    untrained: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Ground:
    """A table, and the side of the split that is tested on."""

    table: OutcomeTable
    confirm: bool

    @property
    def tested(self) -> Mask:
        """Requests of the groups tested on, (n,)."""
        return self._confirmed if self.confirm else ~self._confirmed

    @property
    def pool(self) -> Mask:
        """Requests that may be fitted on where no group is left out, (n,)."""
        return self.main & (self.tested | ~self._confirmed)

    @property
    def design(self) -> Mask:
        """Requests that may be fitted on where the groups tested on are left out, (n,)."""
        return self.main & ~self._confirmed

    @property
    def main(self) -> Mask:
        """Requests of a data set as they are, without an agent's frame, (n,)."""
        return self.table.kind == "main"

    @property
    def _confirmed(self) -> Mask:
        groups = self.table.group
        return np.isin(groups, [g for g in np.unique(groups) if is_confirmation(str(g))])

    def fold(self, fit: Mask, test: Mask, left_out: LeftOut = "rows") -> Fold:
        """Test on some requests, and fit on others less the items of those."""
        apart = ~np.isin(self.table.row, self.table.row[test])
        return Fold(np.flatnonzero(fit & apart), np.flatnonzero(test), left_out)


def is_confirmation(group: str) -> bool:
    """Whether a group is one of the third to confirm on."""
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % 3 == 0


def folds(table: OutcomeTable, protocol: str) -> Iterator[Fold]:
    """The folds of a protocol; see PROTOCOLS and CONFIRMATIONS."""
    confirm = protocol.startswith(CONFIRM)
    return PROTOCOLS[protocol.removeprefix(CONFIRM)](Ground(table, confirm))


def new_rows(ground: Ground) -> Iterator[Fold]:
    """New items of profiled data sets: a fifth of each data set's at a time."""
    table, tested = ground.table, ground.main & ground.tested
    part = item_parts(table.dataset, table.row, FOLDS, np.random.default_rng(0))
    for k in range(FOLDS):
        yield ground.fold(ground.pool, tested & (part == k))


def wording_left_out(ground: Ground) -> Iterator[Fold]:
    """Wordings that are new, of profiled data sets and on new items: of each data set one, or a quarter, at a time."""
    table, tested = ground.table, ground.main & ground.tested
    part = wording_parts(table.dataset, table.wording, WORDING_FOLDS, np.random.default_rng(0))
    for k in range(WORDING_FOLDS):
        yield ground.fold(ground.pool & (part != k), tested & (part == k), "wordings")


def group_left_out(ground: Ground) -> Iterator[Fold]:
    """Groups of data sets that are new."""
    tested = ground.main & ground.tested
    if ground.confirm:
        yield ground.fold(ground.design, tested, "groups")
        return
    part = parts(ground.table.group, GROUP_FOLDS, np.random.default_rng(0), among=tested)
    for k in range(GROUP_FOLDS):
        yield ground.fold(ground.design & (part != k), tested & (part == k), "groups")


def both_left_out(ground: Ground) -> Iterator[Fold]:
    """Groups that are new, when of the profiled data sets only half of the wordings were seen."""
    table = ground.table
    for k, fold in enumerate(group_left_out(ground)):
        half = half_of_wordings(table.dataset, table.wording, np.random.default_rng(k))
        yield replace(fold, fit=fold.fit[half[fold.fit]])


def sources_only(ground: Ground) -> Iterator[Fold]:
    """Only data sets that adapters were trained on are profiled; tested on groups with none of these.

    A fifth of the groups at a time: of the others a router may have what ships with it.
    """
    table = ground.table
    trained_on = np.isin(table.dataset, [name for names in table.homes for name in names])
    near = np.isin(table.group, table.group[trained_on])
    tested = ground.main & ground.tested & ~near
    part = parts(table.group, FOLDS, np.random.default_rng(0), among=tested)
    for k in range(part.max() + 1):
        yield ground.fold(ground.design & trained_on, part == k, "homes")


def new_adapter(ground: Ground) -> Iterator[Fold]:
    """An adapter at a time that the router was not fitted on, known by its mean gains; on new items."""
    parts = list(new_rows(ground))
    for new in range(len(ground.table.adapters)):
        yield replace(parts[new % FOLDS], new=new)


def new_adapter_tenth(ground: Ground) -> Iterator[Fold]:
    """The same, its mean gains known from a tenth of the rows."""
    yield from (replace(fold, new_rows=TENTH) for fold in new_adapter(ground))


def new_adapter_no_rows(ground: Ground) -> Iterator[Fold]:
    """A new adapter of which the training rows are not known."""
    yield from (replace(fold, untrained=(fold.new,)) for fold in new_adapter(ground) if fold.new is not None)


def no_training_rows(ground: Ground) -> Iterator[Fold]:
    """Groups that are new, when no adapter's training rows are known."""
    everyone = tuple(range(len(ground.table.adapters)))
    yield from (replace(fold, untrained=everyone) for fold in group_left_out(ground))


def agent(ground: Ground) -> Iterator[Fold]:
    """Profiled data sets as agents ask: system prompts with tools, earlier turns, long contexts; on new items."""
    yield ground.fold(ground.pool, np.isin(ground.table.kind, AGENT_KINDS) & ground.tested)


PROTOCOLS: dict[str, Callable[[Ground], Iterator[Fold]]] = {
    f.__name__: f
    for f in (
        new_rows,
        wording_left_out,
        group_left_out,
        both_left_out,
        sources_only,
        new_adapter,
        new_adapter_tenth,
        new_adapter_no_rows,
        no_training_rows,
        agent,
    )
}
CONFIRMATIONS = tuple(CONFIRM + name for name in PROTOCOLS)


def described(protocol: str) -> str:
    """What a protocol holds out, in a sentence."""
    return (PROTOCOLS[protocol.removeprefix(CONFIRM)].__doc__ or "").splitlines()[0]


def parts(names: NDArray, count: int, rng: np.random.Generator, *, among: Mask | None = None) -> Rows:
    """A part for each row, (n,), the same for rows of one name; -1 outside `among`."""
    among = np.ones(len(names), bool) if among is None else among
    unique, place = np.unique(names[among], return_inverse=True)
    part = np.full(len(names), -1)
    part[among] = (rng.permutation(len(unique)) % count)[place]
    return part


def item_parts(datasets: NDArray, items: NDArray, count: int, rng: np.random.Generator) -> Rows:
    """A part for each row, (n,): of each data set as many items in each."""
    part = np.full(len(items), -1)
    for name in np.unique(datasets):
        of = datasets == name
        part[of] = parts(items[of], count, rng)
    return part


def wording_parts(datasets: NDArray, wordings: NDArray, count: int, rng: np.random.Generator) -> Rows:
    """A part for each row, (n,), the same for all of a wording; -1 in data sets of one wording.

    Data sets of fewer wordings than parts are in some of these only.
    """
    part = np.full(len(wordings), -1)
    for name in np.unique(datasets):
        of = datasets == name
        shift = rng.integers(count)
        if len(np.unique(wordings[of])) > 1:
            part[of] = (parts(wordings[of], count, rng) + shift) % count
    return part


def half_of_wordings(datasets: NDArray, wordings: NDArray, rng: np.random.Generator) -> Mask:
    """The rows, (n,), in half of the wordings of each data set, at least one."""
    kept = np.zeros(len(wordings), bool)
    for name in np.unique(datasets):
        of = datasets == name
        unique = rng.permutation(np.unique(wordings[of]))
        kept[of] = np.isin(wordings[of], unique[: (len(unique) + 1) // 2])
    return kept


def to_design_on(table: OutcomeTable) -> OutcomeTable:
    """The requests of the groups to design on: all that a benchmark beside that of routing looks at."""
    return table.of_requests(np.flatnonzero(Ground(table, confirm=False).tested))
