"""One adapter left out: what is known without it, its full row, and how requests are routed when its gains are such
and such.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from routing.ours import fit_requests, rows_of
from routing.table import OutcomeTable
from traitroute.profiling import TraitSpace
from traitroute.router import RoutingProfile, TrainingRows, fit_profile
from traitroute.router.everyday import LOSS

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
BASE, NEW = -1, -2
"""Choices beside the places of the other adapters."""


@dataclass(frozen=True, eq=False)
class Routes:
    """Requests as the router reads them.

    `others` (n,) is the best gain of another adapter than the new one and `best` (n,) which; `asked` (n, 1 + r + tasks)
    is what requests demand and the tasks they are mixed of, `evidence` (n,) that of the new adapter's training rows,
    `lost` (n,) what any adapter is taken to lose on everyday requests, and `reach` (n,) is how far a gain must lie
    above zero.
    """

    others: Array
    best: Rows
    asked: Array
    evidence: Array
    lost: Array
    reach: Array

    @classmethod
    def of(cls, profile: RoutingProfile, requests: Any) -> "Routes":
        """Read `requests` with a profile whose last adapter is the new one."""
        read = [profile.predict(request) for request in requests]
        others = np.array([p.gains[:-1] for p in read])
        return cls(
            others.max(axis=1),
            others.argmax(axis=1),
            np.array([np.concatenate([p.demand, p.shares]) for p in read]),
            np.array([p.evidence[-1].sum() for p in read]),
            np.array([LOSS * p.everyday for p in read]),
            np.array([p.margin for p in read]),
        )

    def choose(self, profile: RoutingProfile) -> Rows:
        """The adapter chosen for each request when the new one is the last of `profile`: its place, NEW or BASE."""
        own = (
            self.asked[:, 0] + self.asked[:, 1:] @ _supply(profile)[-1] + self.evidence * profile.learnt[-1] - self.lost
        )
        chosen = np.where(own > self.others, NEW, self.best)
        return np.where(np.maximum(own, self.others) > self.reach, chosen, BASE)


def _supply(profile: RoutingProfile) -> Array:
    """What adapters supply of each component and on each task, (adapters, r + tasks)."""
    return np.hstack([profile.trait_scores, profile.residuals.astype(np.float64)])


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What is known when one adapter is left out. Rows are examples of the profiled tasks, in the order of the tasks.

    `task` (n,) numbers their tasks; `known` (n, adapters) are scores of base (column 0) and of the other adapters,
    `marks` (n, any) what else is known of them; `own` (n,) are the left-out adapter's scores, `tokens` (n,) what it
    wrote, `gains` (tasks,) its full row, `own_marks` (n, 3) the likelihoods of its gold answers.
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
    requests: Any

    @cached_property
    def full(self) -> RoutingProfile:
        """The others' profile with the full row."""
        return self.joined(self.gains)

    @cached_property
    def routes(self) -> Routes:
        """The requests as the router reads them."""
        return Routes.of(self.full, self.requests.tolist())

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

    def agreement(self, gains: Array) -> tuple[float, float]:
        """Share of requests that are routed as with the full row: of all, and of those that either sends to the new
        adapter.
        """
        chosen = self.routes.choose(self.joined(gains))
        wanted = self.routes.choose(self.full)
        around = (chosen == NEW) | (wanted == NEW)
        same = chosen == wanted
        return float(same.mean()), float(same[around].mean()) if around.any() else 1.0


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
        requests=table.marks,
    )
