"""One adapter left out: what is known without it, its full row, and how requests are routed when its gains are such
and such.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from routing.ours import fit_requests, rows_of
from routing.table import OutcomeTable
from traitroute.profiling import TraitSpace
from traitroute.router import RequestTokens, Router, RoutingProfile, TrainingRows, fit_profile

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What is known when one adapter is left out. Rows are examples of the profiled tasks, in the order of the tasks.

    `task` (n,) numbers their tasks; `known` (n, adapters) are scores of base (column 0) and of the other adapters,
    `marks` (n, any) what else is known of them; `own` (n,) are the left-out adapter's scores, `tokens` (n,) what it
    wrote, `gains` (tasks,) its full row, `own_marks` (n, 3) the likelihoods of its gold answers. `scores`
    (requests, adapters + 2) are those of the requests that are routed: of the other adapters, of the new one, of base.
    """

    task: Rows
    known: Array
    marks: Array
    own: Array
    own_marks: Array
    tokens: Array
    gains: Array
    traits: TraitSpace
    name: str
    training: TrainingRows
    profile: RoutingProfile
    requests: Sequence[RequestTokens]
    scores: Array

    @cached_property
    def full(self) -> RoutingProfile:
        """The others' profile with the full row."""
        return self.joined(self.gains)

    @cached_property
    def wanted(self) -> Rows:
        """What is chosen for each request with the full row."""
        return self.choose(self.full)

    @property
    def size(self) -> int:
        """Examples of the full row."""
        return len(self.task)

    @property
    def members(self) -> list[Rows]:
        """The rows of each task."""
        return [np.flatnonzero(self.task == t) for t in range(len(self.gains))]

    @property
    def base(self) -> Array:
        """Base's mean score on each task."""
        return self.means(self.known[:, 0])

    def means(self, values: Array) -> Array:
        """Means of `values` (n,) over each task, (tasks,)."""
        return np.bincount(self.task, values) / np.bincount(self.task)

    def trait_error(self, gains: Array) -> float:
        """Distance of the trait vectors of `gains` (tasks,) and of the full row, as a share of the latter's length."""
        found, full = self.traits.transform(np.stack([gains, self.gains]))
        return float(np.linalg.norm(found - full) / np.linalg.norm(full))

    def joined(self, gains: Array) -> RoutingProfile:
        """The others' profile with a row of `gains` (tasks,); where they are NaN, what the traits expect."""
        scores = self.traits.transform(gains[None])
        known = np.where(np.isnan(gains), self.traits.inverse_transform(scores)[0], gains)
        return self.profile.with_adapter(self.name, scores[0], self.training, gains=known)

    def choose(self, profile: RoutingProfile) -> Rows:
        """The place of the adapter chosen for each request, -1 for base."""
        return Router(profile).choose(self.requests).chosen

    def agreement(self, gains: Array) -> tuple[float, float, float]:
        """Share of requests that are routed as with the full row: of all, and of those that either sends to the new
        adapter; and by how much the mean score is lower than with the full row.
        """
        chosen, new = self.choose(self.joined(gains)), len(self.profile.adapters)
        around = (chosen == new) | (self.wanted == new)
        same = chosen == self.wanted
        rows = np.arange(len(chosen))
        lost = (self.scores[rows, self.wanted] - self.scores[rows, chosen]).mean()
        return float(same.mean()), float(same[around].mean()) if around.any() else 1.0, float(lost)


def left_out(table: OutcomeTable, adapter: int, score: str = "strict") -> LeftOut:
    """Fit traits and router on the other adapters' outcomes on the profiled tasks; all requests of the table are
    routed.
    """
    pool = np.flatnonzero(table.kind == "main")
    pool = pool[np.argsort(table.task[pool], kind="stable")]
    _, task = np.unique(table.task[pool], return_inverse=True)
    scores = getattr(table, score)[pool].astype(np.float64)
    sizes = np.bincount(task)
    gains = scores[:, 1:] - scores[:, :1]
    matrix = np.array([np.bincount(task, column) / sizes for column in gains.T])
    others = [i for i in range(len(table.adapters)) if i != adapter]
    traits = TraitSpace(n_permutations=100).fit(matrix[others])
    profile = fit_profile(
        [table.adapters[i] for i in others],
        fit_requests(table, pool, scores, others),
        traits.transform(matrix[others]),
        n_traits=traits.n_traits_,
    )
    likelihood, gold = (
        np.nan_to_num(values[pool].astype(np.float64)) for values in (table.likelihood, table.gold_probability)
    )
    columns = [0, *(1 + i for i in others)]
    own = 1 + adapter
    return LeftOut(
        task=task,
        known=scores[:, columns],
        marks=np.hstack([likelihood[:, columns], gold[:, columns]]),
        own=scores[:, own],
        own_marks=np.stack([likelihood[:, own], np.exp(likelihood[:, own]), gold[:, own]], axis=1),
        tokens=table.output_tokens[pool, own].astype(np.float64),
        gains=matrix[adapter],
        traits=traits,
        name=table.adapters[adapter],
        training=rows_of(table, adapter),
        profile=profile,
        requests=table.marks.tolist(),
        scores=getattr(table, score)[:, [*columns[1:], own, 0]].astype(np.float64),
    )
