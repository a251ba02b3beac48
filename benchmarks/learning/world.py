"""Traffic of measured requests: what base and every adapter answer to each, and what the router predicts of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from routing.ours import OurRouter
from routing.protocols import Fold, Ground
from routing.seen import see
from routing.table import OutcomeTable
from routing.trials import design_table, fold_list
from traitroute.router import NOVEL, Corrections, RequestTokens, Router, RoutingProfile

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class World:
    """n requests the router was not fitted on, of data sets `names` (n,), in `novel` ones where no task covers them.

    Predicted are `gains` (n, a) with margin `reach` (n,), from how like (n, kinds) each profiled kind they are; `level`
    (n,) is base's measured score on the nearest, `place` (n,). `right` (n, 1 + a) says how well base and each adapter
    answer.
    """

    profile: RoutingProfile
    marks: Sequence[RequestTokens]
    names: NDArray[np.str_]
    novel: NDArray[np.bool_]
    gains: Array
    reach: Array
    likeness: Array
    right: Array

    @classmethod
    def measured(cls, file: Path, *, new_kinds: bool = False) -> "World":
        """Fit the router, and read off what it predicts of requests it was not fitted on.

        With `new_kinds` a third of the groups of data sets is left out of the fit, and a fifth of the items of others.
        """
        table = design_table(file)
        fold, novel = _fold(table, new_kinds)
        seen, asked = see(table, table.strict.astype(np.float64), fold)
        profile = OurRouter().fit(seen).router.profile
        predicted = profile.predict_many(asked.marks.tolist())
        return cls(
            profile=profile,
            marks=asked.marks.tolist(),
            names=table.dataset[fold.test],
            novel=novel[fold.test],
            gains=predicted.gains,
            reach=predicted.margin,
            likeness=predicted.likeness,
            right=table.strict[fold.test].astype(np.float64),
        )

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters, by column of `gains`."""
        return self.profile.adapters

    @cached_property
    def place(self) -> Rows:
        """The nearest profiled kind, (n,)."""
        return self.likeness.argmax(axis=1)

    @cached_property
    def kind(self) -> NDArray[np.object_]:
        """What a decision token calls the kind, (n,): None of what is like nothing profiled."""
        names = np.array([*self.profile.tasks, None], object)
        return names[np.where(1 - self.likeness.max(axis=1) < NOVEL, self.place, -1)]

    @property
    def level(self) -> Array:
        """Base's measured score on the nearest kind, (n,)."""
        return self.profile.base[self.place]

    def corrected(self, corrections: Corrections | None) -> Array:
        """Predicted gains (n, a) under corrections."""
        return self.gains if corrections is None else self.gains + corrections.of(self.likeness)

    def chosen(self, gains: Array) -> Rows:
        """The column chosen for each request by predicted gains (n, a), as `Router` chooses: 0 is base."""
        best = gains.argmax(axis=1)
        return np.where(gains.max(axis=1) - self.reach > 0, 1 + best, 0)

    def check(self, corrections: Corrections, every: int = 7) -> None:
        """Assert, of some requests, that this is what the router itself does with these corrections."""
        router = Router(replace(self.profile, corrections=corrections))
        names = [router.route(marks).adapter for marks in self.marks[::every]]
        columns = [0 if name is None else 1 + self.adapters.index(name) for name in names]
        expected = self.chosen(self.corrected(corrections))[::every].tolist()
        assert columns == expected, "the simulation chooses otherwise"


def is_new_kind(group: str) -> bool:
    """Whether a group is one of the third, of those to design on, that comes as new kinds of request."""
    return int(hashlib.sha256(f"new {group}".encode()).hexdigest(), 16) % 3 == 0


def _fold(table: OutcomeTable, new_kinds: bool) -> tuple[Fold, NDArray[np.bool_]]:
    """What is fitted and asked, and which requests of the table are of groups left out, (n,)."""
    fold = fold_list(table, "new_rows")[0]
    if not new_kinds:
        return fold, np.zeros(len(table), bool)
    groups = table.group
    out = np.isin(groups, [g for g in np.unique(groups) if is_new_kind(str(g))])
    return Ground(table, confirm=False).fold(
        np.isin(np.arange(len(table)), fold.fit) & ~out,
        np.isin(np.arange(len(table)), fold.test) | (out & (table.kind == "main")),
        "groups",
    ), out
