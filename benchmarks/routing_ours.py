"""Our router in the benchmark: the product's own fit and its own `Router.route`, nothing beside them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from routing_baselines import Requests, Rows, Seen
from routing_table import OutcomeTable
from traitroute.profiling import TraitSpace
from traitroute.router import (
    FitRequests,
    RequestMarks,
    Router,
    RoutingProfile,
    TrainingRows,
    fit_profile,
)
from traitroute.router.fit import FitFeatures
from traitroute.router.home import Homes


@dataclass(frozen=True)
class OurRouter:
    """`fit_profile` with `settings`, and `Router` with `routing`."""

    settings: tuple[tuple[str, Any], ...] = ()
    routing: tuple[tuple[str, Any], ...] = ()

    def fit(self, seen: Seen) -> "FittedRouter":
        """Fit traits and profile; an adapter known by its task gains alone is projected into the traits."""
        kept = [i for i in range(seen.gains.shape[1]) if i != seen.new]
        means = seen.task_means(seen.gains).T
        traits = TraitSpace(n_permutations=100).fit(means[kept])
        requests = FitRequests(
            list(seen.requests.marks),
            seen.tasks.tolist(),
            seen.gains[:, kept],
            seen.datasets.tolist(),
            [rows_of(seen.table, i) for i in kept],
        )
        names = [seen.table.adapters[i] for i in kept]
        profile = fit_profile(
            names,
            requests,
            traits.transform(means[kept]),
            n_traits=traits.n_traits_,
            features=_features(seen, requests),
            **dict(self.settings),
        )
        if seen.new is not None:
            scores = traits.transform(means[[seen.new]])
            profile = _joined(profile, seen.table, seen.new, scores)
        return FittedRouter(Router(profile, **dict(self.routing)), seen.table.adapters)


@dataclass(frozen=True)
class FittedRouter:
    """The router and the adapters in the table's order."""

    router: Router
    adapters: tuple[str, ...]

    def with_caution(self, caution: float) -> "FittedRouter":
        """The same with another caution."""
        return replace(self, router=Router(self.router.profile, caution=caution))

    def choose(self, requests: Requests) -> Rows:
        """The column chosen for each request."""
        return np.array([self._column(self.router.route(m).adapter) for m in requests.marks])

    def forecast(self, requests: Requests) -> tuple[Rows, np.ndarray]:
        """The best-ranked column for each request and the gain predicted of it, (n,) each."""
        ranked = [self.router.route(m).ranking[0] for m in requests.marks]
        return np.array([self._column(r.adapter) for r in ranked]), np.array(
            [r.gain for r in ranked]
        )

    def _column(self, name: str | None) -> int:
        return 0 if name is None else 1 + self.adapters.index(name)


def rows_of(table: OutcomeTable, adapter: int) -> TrainingRows:
    """The training rows of an adapter that the table holds."""
    rows = np.flatnonzero(table.source_adapter == adapter)
    prompts: list[RequestMarks] = table.source_marks[rows].tolist()
    return TrainingRows(prompts, [table.source_answer_counts[i] for i in rows])


def _joined(
    profile: RoutingProfile, table: OutcomeTable, new: int, scores: np.ndarray
) -> RoutingProfile:
    """The profile with one more adapter, of projected trait scores (1, all components)."""
    rank = profile.trait_scores.shape[1]
    home = Homes.of([rows_of(table, new)], profile.features)
    parts = ("centroids", "typical", "spread", "words", "shares")
    joined = {p: np.concatenate([getattr(profile.homes, p), getattr(home, p)]) for p in parts}
    return replace(
        profile,
        adapters=(*profile.adapters, table.adapters[new]),
        trait_scores=np.vstack([profile.trait_scores, scores[:, :rank]]),
        homes=replace(profile.homes, **joined),
    )


_arranged: dict[bytes, FitFeatures] = {}


def _features(seen: Seen, requests: FitRequests) -> FitFeatures:
    """Features do not depend on adapters or scores, so that folds over the same requests share them."""
    key = seen.rows.tobytes() + bytes([255 if seen.new is None else seen.new])
    key += str(seen.table.adapters).encode()
    if key not in _arranged:
        _arranged[key] = FitFeatures.of(requests)
    return _arranged[key]


OURS = {"traitroute": OurRouter()}
ABLATIONS: dict[str, OurRouter] = {"without the guard": OurRouter(routing=(("caution", 0.0),))}
