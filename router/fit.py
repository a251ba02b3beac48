"""Fit a routing profile from per-example outcomes.

The demand model learns from *per-example* gains, not from task labels, so that it carries over to tasks
nobody profiled. Everything that is chosen is chosen on requests that were not fitted on: the ridge penalty
on held-out requests of profiled tasks and on tasks left out alike, the number of components on the
former, and the caution on the latter (`caution.py`). With all `adapters - 1` components the trait form equals a direct regression of the gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold

from .caution import CautionCurve
from .demand import DemandModel, predictions
from .features import Request, RequestFeatures
from .home import Homes, TrainingRows, home_weights
from .novelty import Novelty
from .profile import RoutingProfile

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
ALPHAS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5


@dataclass(frozen=True)
class _Fold:
    """Rows to fit on and rows held out, with their features; `unseen` (test,) is the novelty of the rows held out."""

    train: Rows
    test: Rows
    X_train: Array
    X_test: Array
    unseen: Array
    evidence_train: Array
    evidence_test: Array


@dataclass(frozen=True)
class FitRequests:
    """Measured requests: texts (or marks) and task names of length n, `gains` (n, adapters) in [-1, 1].

    `groups` (n,) names what is left out together when a new task is played; by default each task.
    `sources` (adapters,) are rows that each adapter was trained on, where they are known.
    """

    texts: Sequence[Request]
    tasks: Sequence[str]
    gains: Array
    groups: Sequence[str] | None = None
    sources: Sequence[TrainingRows | None] | None = None


@dataclass(frozen=True)
class FitFeatures:
    """Features of the requests, and the folds that settings are chosen on; they do not depend on gains."""

    texts: Sequence[Request]
    tasks: NDArray[np.intp]
    names: tuple[str, ...]
    groups: NDArray[np.intp]
    sources: Sequence[TrainingRows | None]
    random_state: int = 0

    @classmethod
    def of(cls, requests: FitRequests, random_state: int = 0) -> "FitFeatures":
        """Arrange the requests."""
        names = tuple(dict.fromkeys(requests.tasks))
        groups = list(requests.groups or requests.tasks)
        kinds = list(dict.fromkeys(groups))
        return cls(
            requests.texts,
            np.array([names.index(t) for t in requests.tasks]),
            names,
            np.array([kinds.index(g) for g in groups]),
            requests.sources or [None] * requests.gains.shape[1],
            random_state,
        )

    @cached_property
    def features(self) -> RequestFeatures:
        """Features fitted on all requests, and on what the adapters were trained on."""
        return self._fitted(self.texts)

    @cached_property
    def rows(self) -> Array:
        """Features of all requests, (n, p)."""
        return self.features.transform(self.texts)

    @cached_property
    def homes(self) -> Homes:
        """Where the adapters are at home."""
        return Homes.of(self.sources, self.features)

    @cached_property
    def evidence(self) -> Array:
        """Evidence of all requests, (n, adapters, kinds)."""
        return self.homes.evidence(self.rows, self.texts)

    @cached_property
    def weights(self) -> Array:
        """Weights (n,) of mean 1: a task counts by the square root of its size."""
        weights = 1 / np.sqrt(np.bincount(self.tasks)[self.tasks])
        return weights / weights.mean()

    @cached_property
    def known(self) -> list[_Fold]:
        """Folds that hold out requests of profiled tasks."""
        folds = KFold(min(FOLDS, len(self.tasks)), shuffle=True, random_state=self.random_state)
        return [self._anew(a, b) for a, b in folds.split(self.tasks)]

    @cached_property
    def new(self) -> list[_Fold]:
        """Folds that hold out whole groups."""
        if self.groups.max() < 2:
            return self.known
        folds = GroupKFold(min(FOLDS, int(self.groups.max()) + 1))
        return [self._anew(a, b) for a, b in folds.split(self.tasks, groups=self.groups)]

    def _fitted(self, texts: Sequence[Request]) -> RequestFeatures:
        prompts = [p for rows in self.sources if rows is not None for p in rows.prompts]
        return RequestFeatures(random_state=self.random_state).fit([*texts, *prompts])

    def _anew(self, train: Rows, test: Rows) -> _Fold:
        """A fold with features fitted anew, since words that are held out must be as unseen as new ones."""
        inside, outside = ([self.texts[i] for i in rows] for rows in (train, test))
        features = self._fitted(inside)
        X_train, X_test = features.transform(inside), features.transform(outside)
        homes = Homes.of(self.sources, features)
        return _Fold(
            train,
            test,
            X_train,
            X_test,
            features.unseen_mass(X_test),
            homes.evidence(X_train, inside),
            homes.evidence(X_test, outside),
        )


def fit_profile(
    adapters: Sequence[str],
    requests: FitRequests,
    trait_scores: Array,
    *,
    n_traits: int,
    rank: int | None = None,
    risk: float = 0.05,
    random_state: int = 0,
) -> RoutingProfile:
    """Fit features, demand, error estimates and caution; `trait_scores` are all PCA scores, (adapters, r).

    `rank` components are kept, by default as many as predict held-out gains best; `risk` is the share of tasks left out that
    routing may harm.
    """
    at = FitFeatures.of(requests, random_state)
    gains = requests.gains
    unseen_known, unseen_new = _unseen(at.known), _unseen(at.new)
    novelty = Novelty.of(unseen_known, unseen_new)
    known = _held_out(at, at.known, gains, 1 - novelty.share(unseen_known))
    new = _held_out(at, at.new, gains, 1 - novelty.share(unseen_new))
    # Held-out requests of known tasks and new tasks count alike.
    errors = sum(np.mean((found - gains) ** 2, axis=(1, 2)) for found in (known, new))
    best = int(np.argmin(errors))
    alpha, on_known, on_new = ALPHAS[best], known[best], new[best]
    worth = home_weights(at.evidence, gains, at.tasks)
    rest = gains - at.evidence @ worth
    rank = rank or _best_rank(on_known, gains, trait_scores, n_traits)
    scores = trait_scores[:, :rank]
    profile = RoutingProfile(
        adapters=tuple(adapters),
        tasks=at.names,
        trait_scores=scores,
        n_traits=n_traits,
        features=at.features,
        demand=DemandModel(alpha).fit(at.rows, to_demand(rest, scores), at.weights),
        homes=at.homes,
        home_weights=worth,
        centroids=_means(at.rows, at.tasks),
        error_known=_task_error(on_known, gains, at.tasks),
        error_new=_task_error(on_new, gains, at.tasks),
        novelty=novelty,
        caution=0.0,
        risk=risk,
        fitted_on=len(at.tasks),
    )
    curve = CautionCurve.of(on_new, profile.error(unseen_new), gains, at.tasks)
    return replace(profile, caution=curve.caution(risk, int(at.groups.max()) + 1))


def to_demand(gains: Array, trait_scores: Array) -> Array:
    """Split per-example gains (n, adapters) into mean gain and least-squares demand, (n, 1 + r)."""
    mean = gains.mean(axis=1, keepdims=True)
    return np.hstack([mean, (gains - mean) @ np.linalg.pinv(trait_scores).T])


def to_gains(demand: Array, trait_scores: Array) -> Array:
    """Predicted gains (n, adapters) of demands (n, 1 + r): `mean + trait_scores @ demand`."""
    return demand[:, :1] + demand[:, 1:] @ trait_scores.T


def _held_out(at: FitFeatures, folds: Sequence[_Fold], gains: Array, trust: Array) -> Array:
    """Gains as models of each penalty predict them that did not see the request, (ALPHAS, n, adapters)."""
    predicted = np.empty((len(ALPHAS), *gains.shape))
    for fold in folds:
        inside = gains[fold.train]
        worth = home_weights(fold.evidence_train, inside, at.tasks[fold.train])
        rest = inside - fold.evidence_train @ worth
        found = predictions(ALPHAS, fold.X_train, rest, at.weights[fold.train], fold.X_test)
        found *= trust[fold.test][:, None]
        predicted[:, fold.test] = found + fold.evidence_test @ worth
    return predicted


def _unseen(folds: Sequence[_Fold]) -> Array:
    """Unseen mass of every request where it was held out, (n,)."""
    rows = np.concatenate([f.test for f in folds])
    return np.concatenate([f.unseen for f in folds])[np.argsort(rows)]


def _best_rank(held_out: Array, gains: Array, trait_scores: Array, n_traits: int) -> int:
    """The number of components, `n_traits` or more, of least squared error."""

    def error(rank: int) -> float:
        scores = trait_scores[:, :rank]
        return float(np.mean((to_gains(to_demand(held_out, scores), scores) - gains) ** 2))

    return min(range(n_traits, trait_scores.shape[1] + 1), key=error)


def _task_error(held_out: Array, gains: Array, tasks: NDArray[np.intp]) -> float:
    return float(np.sqrt(np.mean((_means(held_out, tasks) - _means(gains, tasks)) ** 2)))


def _means(values: Array, groups: NDArray[np.intp]) -> Array:
    return np.array([values[groups == g].mean(axis=0) for g in range(groups.max() + 1)])
