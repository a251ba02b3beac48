"""The routers that ours is compared with, each with its settings chosen inside the rows it is fitted on.

All say how much they expect each adapter to gain over base, (n, a) in score points or any scale of their own in
which 0 is the base model's place; `choose` takes the best. Where known tasks are asked for again, settings are
chosen on held-out rows, and where new tasks are asked for on held-out data sets: more than a router in production
knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .seen import Array, Requests, Router, Rows, Seen
from .table import OutcomeTable

if TYPE_CHECKING:
    from .semantic import BestRoutes

RANK, AXES, STEPS = 8, 96, (20, 40, 80)
"""Of the logistic models: latent dimensions, main axes of the embeddings that are read, steps of training to choose
from.
"""
COUNTS = (5, 15, 50, 150)
"""Of the nearest examples, how many are asked."""


Gains = Callable[[Any], Array]
"""From a setting to the gains (n, a) predicted under it."""
Predict = Callable[[Requests], Gains]
"""Reads requests once for all settings."""


@dataclass(frozen=True)
class ByGain:
    """Chooses the adapter of the highest predicted gain, and base where none is above 0."""

    predict: Predict
    setting: Any

    def choose(self, requests: Requests) -> Rows:
        """See `Fitted`."""
        return best_column(self.predict(requests)(self.setting))


def best_column(gains: Array) -> Rows:
    """0 where no gain is above 0, else 1 + the place of the highest, (n,)."""
    return np.argmax(np.hstack([np.zeros((len(gains), 1)), gains]), axis=1)


@dataclass(frozen=True)
class Settled:
    """A router whose setting is the one of `settings` with the best score on inner folds."""

    build: Callable[[Seen], Predict]
    settings: Sequence[Any] = (None,)

    def fit(self, seen: Seen) -> ByGain:
        """See `Router`."""
        return ByGain(self.build(seen), self._best(seen))

    def _best(self, seen: Seen) -> Any:
        if len(self.settings) == 1:
            return self.settings[0]
        found: dict[Any, list[float]] = {setting: [] for setting in self.settings}
        for inside, outside in seen.inner_folds():
            held_out = seen.take(outside)
            gains = self.build(seen.take(inside))(held_out.requests)
            for setting in self.settings:
                choice = best_column(gains(setting))
                got = held_out.scores[np.arange(len(choice)), choice]
                found[setting] += held_out.task_means(got).tolist()
        return max(self.settings, key=lambda setting: np.mean(found[setting]))


def _constant(row: Array) -> Predict:
    return lambda requests: lambda setting: np.tile(row, (len(requests), 1))


def base(seen: Seen) -> Predict:
    """Always the base model."""
    return _constant(np.zeros(seen.gains.shape[1]))


def random(seen: Seen) -> Predict:
    """Any adapter."""
    rng, a = np.random.default_rng(0), seen.gains.shape[1]
    return lambda requests: lambda setting: rng.random((len(requests), a))


def best_single(seen: Seen) -> Predict:
    """The adapter of the highest mean gain over the tasks fitted on."""
    return _constant(seen.task_means(seen.gains).mean(axis=0))


def nearest_source(seen: Seen) -> Predict:
    """The adapter whose training prompts are most alike by sentence embedding, as LoraRetriever does."""
    table = seen.table
    rows = table.source_sentence.astype(np.float64)
    means = [rows[table.source_adapter == i].mean(axis=0) for i in range(len(table.adapters))]
    sources = _unit(np.array(means))
    return lambda requests: lambda setting: 2 + requests.sentence @ sources.T


def semantic_router(seen: Seen) -> Predict:
    """The package semantic-router, a route an adapter, told by training prompts; the setting is its threshold."""
    found, a = _best_routes(seen.table), len(seen.table.adapters)

    def predict(requests: Requests) -> Gains:
        at, best = np.arange(len(requests)), found.adapter[requests.rows]

        def gains(threshold: float) -> Array:
            scores = np.full((len(requests), a), -1.0)
            # A route of just the threshold is chosen, and 0 is base's place.
            scores[at, best] = found.score[requests.rows] - threshold + 1e-9
            return scores

        return gains

    return predict


@lru_cache(maxsize=2)
def _best_routes(table: OutcomeTable) -> "BestRoutes":
    """The package's choice for every request; utterances do not change with what is held out."""
    from .semantic import SemanticRouterBaseline

    vectors = table.source_sentence.astype(np.float64)
    utterances = {name: vectors[table.source_adapter == i] for i, name in enumerate(table.adapters)}
    fitted = SemanticRouterBaseline().fit(table.adapters, utterances)
    return fitted.best(table.sentence.astype(np.float64))


def task_mixture(seen: Seen) -> Predict:
    """Gains of the profiled tasks, weighed by the request's likeness to each, as LORAUTER does."""
    centroids = _unit(seen.task_means(seen.requests.sentence))
    means = seen.task_means(seen.gains)

    def predict(requests: Requests) -> Gains:
        likeness = requests.sentence @ centroids.T

        def gains(temperature: float) -> Array:
            weights = np.exp(likeness / temperature)
            return (weights / weights.sum(axis=1, keepdims=True)) @ means

        return gains

    return predict


def nearest_examples(seen: Seen) -> Predict:
    """Mean gains of the most alike requests, weighed by likeness."""
    measured, sentences = seen.gains, seen.requests.sentence

    def predict(requests: Requests) -> Gains:
        likeness = requests.sentence @ sentences.T
        most = min(max(COUNTS), likeness.shape[1] - 1)
        near = np.argpartition(-likeness, most, axis=1)[:, :most]
        found = np.take_along_axis(likeness, near, axis=1)
        order = np.argsort(-found, axis=1)
        near = np.take_along_axis(near, order, axis=1)
        found = np.take_along_axis(found, order, axis=1)

        def gains(count: int) -> Array:
            weights = np.clip(found[:, :count], 1e-6, None)
            weights /= weights.sum(axis=1, keepdims=True)
            return np.einsum("nk,nka->na", weights, measured[near[:, :count]])

        return gains

    return predict


def sentence_ridge(seen: Seen) -> Predict:
    """Ridge regression of every adapter's gain on the sentence embedding: direct, without traits."""
    X, gains = seen.requests.sentence, seen.gains
    center, mean = X.mean(axis=0), gains.mean(axis=0)
    Z = X - center
    values, axes = np.linalg.eigh(Z.T @ Z)
    moment = axes.T @ (Z.T @ (gains - mean))

    def predict(requests: Requests) -> Gains:
        along = (requests.sentence - center) @ axes
        return lambda penalty: along @ (moment / (values + penalty)[:, None]) + mean

    return predict


def matrix_factorisation(seen: Seen) -> Predict:
    """Logistic bilinear model of being right: column vectors times a projection, as RouteLLM's MF router."""
    return _logistic(seen, shared=False)


def item_response(seen: Seen) -> Predict:
    """Multidimensional item-response model: abilities of columns, discrimination and difficulty from the text."""
    return _logistic(seen, shared=True)


def _logistic(seen: Seen, *, shared: bool) -> Predict:
    """P(right) = sigmoid(ability_j . project(x) + bias_j + ease(x) [shared]); the setting is the steps of training."""
    import torch

    center, axes = seen.requests.sentence.mean(axis=0), _axes(seen.requests.sentence)

    def read(requests: Requests) -> torch.Tensor:
        return torch.tensor((requests.sentence - center) @ axes, dtype=torch.float32)

    generator = torch.Generator().manual_seed(0)
    X, Y = read(seen.requests), torch.tensor(seen.scores, dtype=torch.float32)
    a, p = Y.shape[1], X.shape[1]
    project = (torch.randn(p, RANK, generator=generator) / 4).requires_grad_()
    ability = (torch.randn(a, RANK, generator=generator) / 4).requires_grad_()
    ease = torch.zeros(p, requires_grad=shared)
    bias = torch.zeros(a, requires_grad=True)
    weights = [project, ability, bias, *([ease] if shared else [])]
    optimizer = torch.optim.Adam(weights, lr=0.05, weight_decay=1e-3)
    kept: dict[int, list[torch.Tensor]] = {}
    for step in range(1, max(STEPS) + 1):
        optimizer.zero_grad()
        logits = (X @ project) @ ability.T + bias + (X @ ease)[:, None]
        torch.nn.functional.binary_cross_entropy_with_logits(logits, Y).backward()
        optimizer.step()
        if step in STEPS:
            kept[step] = [w.detach().clone() for w in (project, ability, ease, bias)]

    def predict(requests: Requests) -> Gains:
        x = read(requests)

        def gains(steps: int) -> Array:
            project, ability, ease, bias = kept[steps]
            right = torch.sigmoid((x @ project) @ ability.T + bias + (x @ ease)[:, None])
            return (right[:, 1:] - right[:, :1]).numpy().astype(np.float64)

        return gains

    return predict


def _axes(sentences: Array) -> Array:
    """The main axes of the embeddings, (384, AXES)."""
    centered = sentences - sentences.mean(axis=0)
    return np.linalg.eigh(centered.T @ centered)[1][:, -AXES:]


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


BASELINES: dict[str, Router] = {
    "base": Settled(base),
    "random": Settled(random),
    "best single adapter": Settled(best_single),
    "nearest source (LoraRetriever)": Settled(nearest_source),
    "semantic-router": Settled(semantic_router, (0.2, 0.3, 0.4, 0.5, 0.6)),
    "task mixture (LORAUTER)": Settled(task_mixture, (0.01, 0.03, 0.06, 0.1, 0.2, 0.4)),
    "nearest examples": Settled(nearest_examples, COUNTS),
    "sentence ridge": Settled(sentence_ridge, (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)),
    "matrix factorisation (RouteLLM)": Settled(matrix_factorisation, STEPS),
    "item response (IRT-Router)": Settled(item_response, STEPS),
}
