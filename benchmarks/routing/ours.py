"""Our router in the benchmark: the product's own fit and its own `Router.route`, nothing beside them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from traitroute.profiling import TraitSpace
from traitroute.router import (
    FitData,
    FitRequests,
    RequestTokens,
    Router,
    RoutingProfile,
    TrainingRows,
    fit_profile,
)
from traitroute.router.everyday import OtherTasks
from traitroute.router.folds import task_means
from traitroute.router.request import Counts

from .seen import Array, Requests, Rows, Seen
from .table import OutcomeTable

LOSSES = Path(__file__).with_name("everyday_losses.tsv")
"""Training keys of adapters, their names, and what they lose on everyday requests (`everyday.py --losses`)."""
Rank = Literal["null", "all"] | None
"""Components kept: those above the null, all, or as many as predict held-out gains best."""


def _same(value: Any) -> Any:
    return value


@cache
def read_everyday_losses(file: Path) -> dict[str, tuple[str, float]]:
    """Name and everyday loss of adapters, by the key of their training."""
    rows = (line.split("\t") for line in file.read_text().splitlines())
    return {key: (name, float(loss)) for key, name, loss in rows}


@dataclass(frozen=True)
class OurRouter:
    """`fit_profile` and `Router`; the fields take parts away, to see what they are worth."""

    rank: Rank = None
    z: float | None = None
    random_state: int = 0
    rows: Callable[[TrainingRows], TrainingRows | None] = _same
    marks: Callable[[RequestTokens], RequestTokens] = _same
    profile: Callable[[RoutingProfile], RoutingProfile] = _same

    def fit(self, seen: Seen) -> "FittedRouter":
        """Fit traits and profile; an adapter known by its task gains alone is projected into the traits."""
        kept = [i for i in range(seen.gains.shape[1]) if i != seen.new]
        means = seen.task_means(seen.gains).T
        traits = TraitSpace(n_permutations=100).fit(means[kept])
        requests = FitRequests(
            [self.marks(m) for m in seen.requests.marks],
            # A kind of request is a data set in one wording.
            [f"{t}/{w}" if w else t for t, w in zip(seen.tasks.tolist(), seen.wordings, strict=True)],
            seen.gains[:, kept],
            seen.groups.tolist(),
            [self._rows(seen.table, i) for i in kept],
            base=seen.scores[:, 0],
            others=OtherTasks.packaged().less(seen.asked),
        )
        # What does not depend on gains is the same for every score.
        key = ("fit data", self.marks, self.rows, self.random_state, seen.new)
        data = seen.requests.once(key, lambda: FitData.of(requests, self.random_state))
        scores = traits.transform(means)
        known = read_everyday_losses(LOSSES)
        lost = [known[key][1] if key in known else None for key in seen.table.trained]
        profile = fit_profile(
            [seen.table.adapters[i] for i in kept],
            requests,
            scores[kept],
            n_traits=traits.n_traits_,
            rank={"null": traits.n_traits_, "all": scores.shape[1], None: None}[self.rank],
            data=data,
            everyday_losses=[lost[i] for i in kept],
        )
        if seen.new is not None:
            rows = self._rows(seen.table, seen.new)
            name, gains = seen.table.adapters[seen.new], task_means(seen.gains[:, [seen.new]], data.tasks)[:, 0]
            profile = profile.with_adapter(name, scores[seen.new], rows, gains=gains, everyday_loss=lost[seen.new])
        router = Router(self.profile(profile), z=self.z)
        return FittedRouter(router, seen.table.adapters, self.marks)

    def _rows(self, table: OutcomeTable, adapter: int) -> TrainingRows | None:
        rows = rows_of(table, adapter)
        return self.rows(rows) if len(rows.prompts) else None


@dataclass(frozen=True)
class FittedRouter:
    """The router and the adapters in the table's order."""

    router: Router
    adapters: tuple[str, ...]
    marks: Callable[[RequestTokens], RequestTokens] = _same

    def with_z(self, z: float) -> "FittedRouter":
        """The same with another z."""
        return replace(self, router=Router(self.router.profile, z=z))

    def choose(self, requests: Requests) -> Rows:
        """The column chosen for each request."""
        return np.array(
            [self._column(self.router.route(self.marks(m)).adapter) for m in requests.marks],
            dtype=np.intp,
        )

    def forecast(self, requests: Requests) -> tuple[Rows, np.ndarray]:
        """The best-ranked column for each request and the gain predicted of it, (n,) each."""
        ranked = [self.router.route(self.marks(m)).ranking[0] for m in requests.marks]
        return np.array([self._column(r.adapter) for r in ranked]), np.array([r.gain for r in ranked])

    def _column(self, name: str | None) -> int:
        return 0 if name is None else 1 + self.adapters.index(name)


def fit_requests(
    table: OutcomeTable, rows: Rows, scores: Array, adapters: Sequence[int], *, asked: Collection[str] | None = None
) -> FitRequests:
    """Some requests of the table, with `scores` (n, 1 + a) of base and all adapters, as the product's fit takes them.

    A kind of request is a task of the table. The tasks that ship with the router come without those of the groups
    `asked` later, by default all of the table.
    """
    return FitRequests(
        table.marks[rows].tolist(),
        [table.tasks[t] for t in table.task[rows]],
        (scores[:, 1:] - scores[:, :1])[:, list(adapters)],
        table.group[rows].tolist(),
        [rows_of(table, i) for i in adapters],
        base=scores[:, 0],
        others=OtherTasks.packaged().less(table.groups if asked is None else asked),
    )


def rows_of(table: OutcomeTable, adapter: int) -> TrainingRows:
    """The training rows of an adapter that the table holds."""
    rows = np.flatnonzero(table.source_adapter == adapter)
    prompts: list[RequestTokens] = table.source_marks[rows].tolist()
    return TrainingRows(prompts, [table.source_answer_counts[i] for i in rows])


NO_WORDS = Counts(np.zeros(0, np.int64), np.zeros(0))

OURS = {"traitroute": OurRouter()}
SEEDS = {f"traitroute, seed {seed}": OurRouter(random_state=seed) for seed in range(1, 5)}
ABLATIONS: dict[str, OurRouter] = {
    "without the guard": OurRouter(z=0.0),
    "without training rows": OurRouter(rows=lambda rows: None),
    "training rows: prompts only": OurRouter(rows=lambda rows: replace(rows, answers=[NO_WORDS] * len(rows.answers))),
    "training rows: answers only": OurRouter(rows=lambda rows: replace(rows, prompts=[])),
    "as many traits as exceed the null": OurRouter(rank="null"),
    "no trait bottleneck": OurRouter(rank="all"),
}
