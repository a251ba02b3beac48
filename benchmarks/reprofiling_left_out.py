"""One adapter left out: what is known without it, its full row, and how requests are routed when its gains are such and such."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from routing_ours import rows_of
from routing_table import OutcomeTable
from traitroute.profiling import TraitSpace
from traitroute.router import FitRequests, Router, RoutingProfile, fit_profile
from traitroute.router.home import worth_of

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
BASE, NEW = -1, -2
"""Choices beside the places of the other adapters."""


@dataclass(frozen=True, eq=False)
class Routes:
    """Requests as the router reads them: predicted gains without the new adapter's own part, which is `mean + demand @ scores`.

    `others` (n,) is the best gain of another adapter and `best` (n,) which, `mean` (n,) and `demand` (n, r) are what
    requests demand, `reach` (n,) is how far a gain must lie above zero.
    """

    others: Array
    best: Rows
    mean: Array
    demand: Array
    reach: Array

    @classmethod
    def of(cls, profile: RoutingProfile, requests: Any) -> "Routes":
        """Read `requests` with a profile whose last adapter is the new one."""
        features = profile.features.transform(requests)
        unseen = profile.features.unseen_mass(features)
        demand = profile.demand.predict(features) * (1 - profile.novelty.share(unseen))[:, None]
        evidence = worth_of(profile.homes.evidence(features, requests), profile.home_weights)
        gains = demand[:, :1] + demand[:, 1:] @ profile.trait_scores.T + evidence
        others = gains[:, :-1]
        return cls(
            others.max(axis=1),
            others.argmax(axis=1),
            demand[:, 0] + evidence[:, -1],
            demand[:, 1:],
            profile.caution * profile.error(unseen),
        )

    def choose(self, scores: Array) -> Rows:
        """The adapter chosen for each request when the new one has trait `scores` (r,): its place, NEW or BASE."""
        own = self.mean + self.demand @ scores[: self.demand.shape[1]]
        chosen = np.where(own > self.others, NEW, self.best)
        return np.where(np.maximum(own, self.others) > self.reach, chosen, BASE)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What is known when one adapter is left out. Rows are examples of the profiled tasks, in the order of the tasks.

    `task` (n,) numbers their tasks; `known` (n, adapters) are scores of base (column 0) and of the other adapters, `marks`
    (n, any) what else is known of them; `own` (n,) are the left-out adapter's scores, `tokens` (n,) what it wrote, `gains`
    (tasks,) its full row, `own_marks` (n, 3) the likelihoods of its gold answers.
    """

    task: Rows
    known: Array
    marks: Array
    own: Array
    own_marks: Array
    tokens: Array
    gains: Array
    main: NDArray[np.bool_]
    traits: TraitSpace
    routes: Routes
    router: Router
    requests: Any

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

    def agreement(self, gains: Array) -> tuple[float, float]:
        """Share of requests that are routed as with the full row: of all, and of those that either sends to the new adapter."""
        found, full = self.traits.transform(np.stack([gains, self.gains]))
        chosen, wanted = self.routes.choose(found), self.routes.choose(full)
        around = (chosen == NEW) | (wanted == NEW)
        same = chosen == wanted
        return float(same.mean()), float(same[around].mean()) if around.any() else 1.0


def left_out(table: OutcomeTable, adapter: int, score: str = "strict") -> LeftOut:
    """Fit traits and router on the other adapters' outcomes on the profiled tasks; all requests of the table are routed."""
    pool = np.flatnonzero(np.isin(table.kind, ["main", "probe"]))
    pool = pool[np.argsort(table.task[pool], kind="stable")]
    names, task = np.unique(table.task[pool], return_inverse=True)
    scores = getattr(table, score)[pool].astype(np.float64)
    sizes = np.bincount(task)
    gains = scores[:, 1:] - scores[:, :1]
    matrix = np.array([np.bincount(task, column) / sizes for column in gains.T])
    others = [i for i in range(len(table.adapters)) if i != adapter]
    traits = TraitSpace(n_permutations=100).fit(matrix[others])
    profile = fit_profile(
        [table.adapters[i] for i in others],
        FitRequests(
            table.marks[pool].tolist(),
            [table.tasks[t] for t in table.task[pool]],
            gains[:, others],
            table.dataset[pool].tolist(),
            [rows_of(table, i) for i in others],
        ),
        traits.transform(matrix[others]),
        n_traits=traits.n_traits_,
    )
    joined = profile.with_adapter(
        table.adapters[adapter],
        traits.transform(matrix[[adapter]])[0],
        rows_of(table, adapter),
    )
    likelihood, gold = (
        np.nan_to_num(values[pool].astype(np.float64))
        for values in (table.likelihood, table.gold_probability)
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
        main=np.array([table.kinds[t] == "main" for t in names]),
        traits=traits,
        routes=Routes.of(joined, table.marks.tolist()),
        router=Router(joined),
        requests=table.marks,
    )
