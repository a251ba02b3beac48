"""The routers that ours is compared with, each with its settings chosen inside the rows it is fitted on.

All say what they expect each column to score on a request, (n, 1 + a): score points, or a scale of their own in which
the first column is base's place; `choose` takes the best. Settings are chosen by leaving out inside what the protocol
leaves out (rows, wordings or groups): more than a router in production knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import csr_matrix

from .logistic import STEPS, fit_logistic
from .seen import Array, Requests, Router, Rows, Seen

COUNTS = (5, 15, 50, 150)
"""Of the nearest examples, how many are asked."""
TOP_UTTERANCES = 5
"""Of the package semantic-router, as it comes."""
STAND_INS = 3
"""Data sets that stand for the training rows of an adapter of which these are not known."""

Scores = Callable[[Any], Array]
"""From a setting to the scores (n, 1 + a) predicted under it."""
Predict = Callable[[Requests], Scores]
"""Reads requests once for all settings."""


@dataclass(frozen=True)
class ByScore:
    """Chooses the column of the highest predicted score, and base where none is above its."""

    predicted: Callable[[Requests], Array]

    def choose(self, requests: Requests) -> Rows:
        """See `Fitted`."""
        return self.predicted(requests).argmax(axis=1)


@dataclass(frozen=True)
class HeldOut:
    """The setting with the best choices on inner folds, their mean score, and what it predicts there, (m, 1 + a)."""

    setting: Any
    score: float
    predicted: Array


@dataclass(frozen=True)
class Settled:
    """A router whose setting is the one of `settings` with the best score on inner folds."""

    build: Callable[[Seen], Predict]
    settings: Sequence[Any] = (None,)

    def fit(self, seen: Seen) -> ByScore:
        """See `Router`."""
        setting = self.settings[0] if len(self.settings) == 1 else self.held_out(seen).setting
        predict = seen.once(("fitted", self), lambda: self.build(seen))
        return ByScore(lambda requests: predict(requests)(setting))

    def held_out(self, seen: Seen) -> HeldOut:
        """What is predicted of rows that were left out."""
        return seen.once(("held out", self), lambda: self._held_out(seen))

    def _held_out(self, seen: Seen) -> HeldOut:
        folds = inner(seen)
        predicted = [self.build(inside)(outside.requests) for inside, outside in folds]
        found = []
        for setting in self.settings:
            scores = np.concatenate([each(setting) for each in predicted])
            found.append(HeldOut(setting, chosen_score(scores, folds), scores))
        return max(found, key=lambda each: each.score)


def inner(seen: Seen) -> list[tuple[Seen, Seen]]:
    """What is fitted on and what is left out, to choose settings with."""
    return seen.once("inner", lambda: [(seen.take(i), seen.take(o)) for i, o in seen.inner_folds()])


def chosen_score(predicted: Array, folds: Sequence[tuple[Seen, Seen]]) -> float:
    """The mean over data sets of the score of what is best by `predicted`, rows of the folds' left-out parts."""
    scores = np.concatenate([outside.scores for _, outside in folds])
    alike = np.concatenate([outside.alike for _, outside in folds])
    allowed = np.where(np.hstack([np.ones((len(alike), 1), bool), alike]), predicted, -np.inf)
    got = scores[np.arange(len(scores)), allowed.argmax(axis=1)]
    _, dataset = np.unique(np.concatenate([outside.datasets for _, outside in folds]), return_inverse=True)
    return float((np.bincount(dataset, got) / np.bincount(dataset)).mean())


def _constant(row: Array) -> Predict:
    return lambda requests: lambda setting: np.tile(row, (len(requests), 1))


def base(seen: Seen) -> Predict:
    """Always the base model."""
    return _constant(np.zeros(seen.scores.shape[1]))


def random(seen: Seen) -> Predict:
    """Any adapter."""
    rng, a = np.random.default_rng(0), seen.gains.shape[1]
    return lambda requests: lambda setting: _with_base(rng.random((len(requests), a)), 0.0)


def best_single(seen: Seen) -> Predict:
    """The column of the highest mean score over the data sets fitted on."""
    return _constant(seen.task_means(seen.scores).mean(axis=0))


def nearest_source(seen: Seen) -> Predict:
    """The adapter whose training prompts are most alike by sentence embedding, as LoraRetriever does; base where none
    is as much alike as the setting says.
    """
    means = [prompts.mean(axis=0, keepdims=True) for prompts in training_prompts(seen)]
    return _most_alike(means)


def centroids(seen: Seen) -> Predict:
    """The adapter with the nearest of the centroids of its training sets, as ARIADNE does (arXiv 2606.19079); base
    where none is as near as the setting says.
    """
    prompts, homes = training_prompts(seen), seen.table.homes
    return _most_alike([_clusters(p.tobytes(), max(1, len(h))) for p, h in zip(prompts, homes, strict=True)])


def _most_alike(places: Sequence[Array]) -> Predict:
    """Scores an adapter by its place (of several, each a row) that is nearest to the request."""
    every = _unit(np.concatenate(places))
    starts = np.cumsum([0, *(len(p) for p in places[:-1])])
    return lambda requests: (
        lambda threshold: _with_base(np.maximum.reduceat(requests.sentence @ every.T, starts, axis=1), threshold)
    )


@lru_cache(maxsize=256)
def _clusters(prompts: bytes, count: int) -> Array:
    """Means of `count` clusters of unit vectors (m, 384), (at most count, 384)."""
    from sklearn.cluster import KMeans

    rows = np.frombuffer(prompts).reshape(-1, 384)
    count = min(count, len(rows))
    if count == 1:
        return rows.mean(axis=0, keepdims=True)
    return KMeans(count, n_init=1, random_state=0).fit(rows).cluster_centers_


def training_prompts(seen: Seen) -> list[Array]:
    """Embeddings of the prompts of each adapter's training rows (m, 384).

    Where these are not known, the requests of the data sets in which it gains most stand for them.
    """
    return seen.requests.once("training prompts", lambda: _training_prompts(seen))


def _training_prompts(seen: Seen) -> list[Array]:
    table, tasks, names = seen.table, seen.tasks, np.array(seen.task_names)
    gains = seen.task_means(seen.gains)
    found = []
    for i in range(gains.shape[1]):
        rows = table.source_sentence[table.source_adapter == i].astype(np.float64)
        if not len(rows):
            most = names[np.argsort(-gains[:, i], kind="stable")[:STAND_INS]]
            rows = seen.requests.sentence[np.isin(tasks, most)]
        found.append(rows)
    return found


def semantic_router(seen: Seen) -> Predict:
    """As the package semantic-router chooses, a route an adapter, told by training prompts; the setting is its
    threshold. `semantic.py` holds the package itself, and its test compares the two.
    """
    prompts = training_prompts(seen)
    utterances, a = _unit(np.concatenate(prompts)), len(prompts)
    route = np.repeat(np.arange(a), [len(p) for p in prompts])

    def predict(requests: Requests) -> Scores:
        means = requests.once(
            ("routes", utterances.tobytes()), lambda: route_means(requests.sentence, utterances, route, a)
        )
        # A route of just the threshold is chosen.
        return lambda threshold: _with_base(means, threshold - 1e-9)

    return predict


def route_means(sentence: Array, utterances: Array, route: Rows, count: int) -> Array:
    """The mean cosine of each route's utterances, of `route`, among the most alike of all, (n, count); else 0."""
    cosines = sentence @ utterances.T
    top = np.argpartition(-cosines, TOP_UTTERANCES, axis=1)[:, :TOP_UTTERANCES]
    totals, counts = np.zeros((len(sentence), count)), np.zeros((len(sentence), count))
    at = np.arange(len(sentence))[:, None]
    np.add.at(totals, (at, route[top]), np.take_along_axis(cosines, top, axis=1))
    np.add.at(counts, (at, route[top]), 1)
    return totals / np.maximum(counts, 1)


def task_mixture(seen: Seen) -> Predict:
    """Scores on the profiled tasks, weighed by the request's likeness to each, as LORAUTER does."""
    middles = seen.requests.once("task centroids", lambda: _unit(seen.task_means(seen.requests.sentence)))
    means = seen.task_means(seen.scores)

    def predict(requests: Requests) -> Scores:
        likeness = requests.sentence @ middles.T

        def scores(temperature: float) -> Array:
            weights = np.exp((likeness - likeness.max(axis=1, keepdims=True)) / temperature)
            return (weights / weights.sum(axis=1, keepdims=True)) @ means

        return scores

    return predict


def nearest_examples(seen: Seen) -> Predict:
    """Mean scores of the most alike requests, weighed by likeness."""
    known = seen.requests

    def predict(requests: Requests) -> Scores:
        weights = requests.once(("neighbours", id(known)), lambda: _neighbours(requests.sentence, known.sentence))
        return lambda count: weights[count] @ seen.scores

    return predict


def _neighbours(asked: Array, known: Array) -> dict[int, csr_matrix]:
    """By each of COUNTS, the weights (n, m) of the known sentences that are nearest to those asked."""
    likeness = asked @ known.T
    most = min(max(COUNTS), likeness.shape[1])
    near = np.argpartition(-likeness, most - 1, axis=1)[:, :most]
    near = np.take_along_axis(near, np.argsort(-np.take_along_axis(likeness, near, axis=1), axis=1), axis=1)
    found = {}
    for count in COUNTS:
        places = near[:, :count]
        weights = np.clip(np.take_along_axis(likeness, places, axis=1), 1e-6, None)
        weights /= weights.sum(axis=1, keepdims=True)
        ends = np.arange(len(asked) + 1) * places.shape[1]
        found[count] = csr_matrix((weights.ravel(), places.ravel(), ends), shape=likeness.shape)
    return found


def sentence_ridge(seen: Seen) -> Predict:
    """Ridge regression of every column's score on the sentence embedding: direct, without traits."""
    center, values, axes, along = seen.requests.once("main axes", lambda: _main_axes(seen.requests.sentence))
    mean = seen.scores.mean(axis=0)
    moment = along.T @ (seen.scores - mean)

    def predict(requests: Requests) -> Scores:
        asked = (requests.sentence - center) @ axes
        return lambda penalty: asked @ (moment / (values + penalty)[:, None]) + mean

    return predict


def _main_axes(sentence: Array) -> tuple[Array, Array, Array, Array]:
    """Mean, and variances, main axes and places along them of the rows about it."""
    center = sentence.mean(axis=0)
    around = sentence - center
    values, axes = np.linalg.eigh(around.T @ around)
    return center, values, axes, around @ axes


def matrix_factorisation(seen: Seen) -> Predict:
    """Logistic bilinear model of the score: column vectors times a projection, as RouteLLM's MF router."""
    return _logistic(seen, shared=False)


def item_response(seen: Seen) -> Predict:
    """Multidimensional item-response model: abilities of columns, discrimination and difficulty from the text."""
    return _logistic(seen, shared=True)


def _logistic(seen: Seen, *, shared: bool) -> Predict:
    center, _, axes, _ = seen.requests.once("main axes", lambda: _main_axes(seen.requests.sentence))

    def read(requests: Requests) -> Array:
        return (requests.sentence - center) @ axes[:, -AXES:]

    model = fit_logistic(read(seen.requests), seen.scores, shared=shared)

    def predict(requests: Requests) -> Scores:
        x = read(requests)
        return lambda steps: model[steps].scores(x)

    return predict


AXES = 96
"""Main axes of the embeddings that the logistic models read."""


def _with_base(adapters: Array, level: float) -> Array:
    """Scores of adapters (n, a) with base's before them, the same for all requests."""
    return np.hstack([np.full((len(adapters), 1), level), adapters])


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


LIKENESS = (-2.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 2.0)
"""Thresholds of cosines below which base is chosen: never, to always."""
SINGLES: dict[str, Settled] = {
    "base": Settled(base),
    "random": Settled(random),
    "best single adapter": Settled(best_single),
    "nearest source (LoraRetriever)": Settled(nearest_source, LIKENESS),
    "training-set centroids (ARIADNE)": Settled(centroids, LIKENESS),
    "semantic-router": Settled(semantic_router, LIKENESS),
    "task mixture (LORAUTER)": Settled(task_mixture, (0.01, 0.03, 0.06, 0.1, 0.2, 0.4)),
    "nearest examples": Settled(nearest_examples, COUNTS),
    "sentence ridge": Settled(sentence_ridge, (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)),
    "matrix factorisation (RouteLLM)": Settled(matrix_factorisation, STEPS),
    "item response (IRT-Router)": Settled(item_response, STEPS),
}


@dataclass(frozen=True)
class Stack:
    """The others' predicted gains, weighed by non-negative least squares on the rows that each left out."""

    members: tuple[Settled, ...]

    def fit(self, seen: Seen) -> ByScore:
        """See `Router`."""
        folds = inner(seen)
        alike = np.concatenate([outside.alike for _, outside in folds])
        target = np.concatenate([outside.gains for _, outside in folds])[alike]
        weights, level = blend(
            np.stack([_gains(member.held_out(seen).predicted)[alike] for member in self.members]), target
        )
        used = [(w, member.fit(seen)) for w, member in zip(weights, self.members, strict=True) if w]

        def predicted(requests: Requests) -> Array:
            mixed = np.full((len(requests), seen.gains.shape[1]), level)
            for w, each in used:
                mixed += w * _gains(each.predicted(requests))
            return _with_base(mixed, 0.0)

        return ByScore(predicted)


def blend(gains: Array, target: Array) -> tuple[Array, float]:
    """Weights (b,), none below 0, and a level with which `gains` (b, n) come nearest to `target` (n,)."""
    means, mean = gains.mean(axis=1), target.mean()
    around = gains - means[:, None]
    factor = np.linalg.cholesky(around @ around.T + 1e-6 * np.eye(len(gains)))
    weights, _ = nnls(factor.T, np.linalg.solve(factor, around @ (target - mean)))
    return weights, float(mean - weights @ means)


def _gains(scores: Array) -> Array:
    return scores[:, 1:] - scores[:, :1]


STACK = "best stack"
BASELINES: dict[str, Router] = {
    **SINGLES,
    STACK: Stack(tuple(r for name, r in SINGLES.items() if name not in ("base", "random"))),
}
