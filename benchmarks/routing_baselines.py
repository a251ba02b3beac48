"""The routers that ours is compared with, each with its settings chosen inside the rows it is fitted on.

All say how much they expect each adapter to gain over base, (n, a) in score points or any scale of their own in
which 0 is the base model's place; `choose` takes the best. Where known tasks are asked for again, settings are
chosen on held-out rows, and where new tasks are asked for on held-out data sets: more than a router in production knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from routing_protocols import Fold
from routing_table import OutcomeTable

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Requests:
    """n requests as a router sees them: `marks` (n,), and MiniLM embeddings (n, 384)."""

    marks: NDArray[np.object_]
    sentence: Array

    def __len__(self) -> int:
        return len(self.sentence)

    def take(self, rows: Rows) -> Self:
        """Some of the requests."""
        return type(self)(self.marks[rows], self.sentence[rows])


@dataclass(frozen=True)
class Seen:
    """What a router is fitted on: requests with `scores` (n, 1 + a), and what the adapters were trained on.

    Of adapter `new` only the mean gain on each task is known; its scores are those means.
    `known` says whether the tasks asked for later are among these.
    """

    requests: Requests
    tasks: NDArray[np.str_]
    datasets: NDArray[np.str_]
    scores: Array
    table: OutcomeTable
    rows: Rows
    known: bool
    new: int | None = None

    @property
    def gains(self) -> Array:
        """Score of each adapter less the base model's, (n, a)."""
        return self.scores[:, 1:] - self.scores[:, :1]

    @property
    def task_names(self) -> list[str]:
        """The tasks, in their order."""
        return list(dict.fromkeys(self.tasks.tolist()))

    def task_means(self, values: Array) -> Array:
        """Means of `values` (n, ...) over each task, (tasks, ...)."""
        return np.array([values[self.tasks == t].mean(axis=0) for t in self.task_names])

    def take(self, rows: Rows) -> Self:
        """The same of some of the rows."""
        return replace(
            self,
            requests=self.requests.take(rows),
            tasks=self.tasks[rows],
            datasets=self.datasets[rows],
            scores=self.scores[rows],
            rows=self.rows[rows],
        )

    def inner_folds(self, n: int = 6) -> list[tuple[Rows, Rows]]:
        """Rows to fit on and to hold out, to choose settings with."""
        rng = np.random.default_rng(1)
        if self.known:
            part = rng.permutation(len(self.tasks)) % n
        else:
            names = list(dict.fromkeys(self.datasets.tolist()))
            place = dict(zip(names, rng.permutation(len(names)) % n, strict=True))
            part = np.array([place[d] for d in self.datasets])
        return [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(n)]


class Router(Protocol):
    """A way of choosing; `fit` returns what is fitted, so that one object serves all folds."""

    def fit(self, seen: Seen) -> "Fitted":
        """Fit on `seen`."""
        ...


class Fitted(Protocol):
    """A fitted router."""

    def choose(self, requests: Requests) -> Rows:
        """The column chosen for each request: 0 the base model, 1 + i adapter i."""
        ...


@dataclass(frozen=True)
class ByGain:
    """Chooses the adapter of the highest `gains`, and base where none is above 0."""

    gains: Callable[[Requests], Array]

    def choose(self, requests: Requests) -> Rows:
        """See `Fitted`."""
        return best_column(self.gains(requests))


def best_column(gains: Array) -> Rows:
    """0 where no gain is above 0, else 1 + the place of the highest, (n,)."""
    return np.argmax(np.hstack([np.zeros((len(gains), 1)), gains]), axis=1)


@dataclass(frozen=True)
class Settled:
    """A router whose setting is the one of `settings` with the best score on inner folds."""

    build: Callable[[Seen, Any], Callable[[Requests], Array]]
    settings: Sequence[Any] = field(default=(None,))

    def fit(self, seen: Seen) -> ByGain:
        """See `Router`."""
        return ByGain(self.build(seen, self._best(seen)))

    def _best(self, seen: Seen) -> Any:
        if len(self.settings) == 1:
            return self.settings[0]
        folds = [(seen.take(a), seen.take(b)) for a, b in seen.inner_folds()]

        def score(setting: Any) -> float:
            found = []
            for inside, outside in folds:
                choice = best_column(self.build(inside, setting)(outside.requests))
                got = outside.scores[np.arange(len(choice)), choice]
                found += [got[outside.tasks == t].mean() for t in outside.task_names]
            return float(np.mean(found))

        return max(self.settings, key=score)


def see(table: OutcomeTable, scores: Array, fold: Fold, *, known: bool) -> tuple[Seen, Requests]:
    """What a router is fitted on in `fold`, and the requests it is then asked about."""
    everything = Requests(table.marks, table.sentence.astype(np.float64))
    tasks = np.array(table.tasks)[table.task]
    fitted = scores[fold.fit]
    if fold.new is not None:
        fitted = fitted.copy()
        for task in np.unique(tasks[fold.fit]):
            members = tasks[fold.fit] == task
            mean = (fitted[members, 1 + fold.new] - fitted[members, 0]).mean()
            fitted[members, 1 + fold.new] = fitted[members, 0] + mean
    seen = Seen(
        requests=everything.take(fold.fit),
        tasks=tasks[fold.fit],
        datasets=table.dataset[fold.fit],
        scores=fitted,
        table=table,
        rows=fold.fit,
        known=known,
        new=fold.new,
    )
    return seen, everything.take(fold.test)


def _constant(column: int, adapters: int) -> Callable[[Requests], Array]:
    row = np.zeros(adapters)
    if column:
        row[column - 1] = 1.0
    return lambda requests: np.tile(row, (len(requests), 1))


def base(seen: Seen, setting: None) -> Callable[[Requests], Array]:
    """Always the base model."""
    return _constant(0, seen.gains.shape[1])


def random(seen: Seen, setting: None) -> Callable[[Requests], Array]:
    """Any adapter."""
    rng, a = np.random.default_rng(0), seen.gains.shape[1]
    return lambda requests: rng.random((len(requests), a))


def best_single(seen: Seen, setting: None) -> Callable[[Requests], Array]:
    """The adapter of the highest mean gain over the tasks fitted on."""
    mean = seen.task_means(seen.gains).mean(axis=0)
    return lambda requests: np.tile(mean, (len(requests), 1))


def nearest_source(seen: Seen, setting: None) -> Callable[[Requests], Array]:
    """The adapter whose training prompts are most alike by sentence embedding, as LoraRetriever does."""
    table = seen.table
    rows = table.source_sentence.astype(np.float64)
    means = [rows[table.source_adapter == i].mean(axis=0) for i in range(len(table.adapters))]
    sources = _unit(np.array(means))
    return lambda requests: 2 + requests.sentence @ sources.T


def task_mixture(seen: Seen, setting: float) -> Callable[[Requests], Array]:
    """Gains of the profiled tasks, weighed by the request's likeness to each, as LORAUTER does."""
    centroids = _unit(seen.task_means(seen.requests.sentence))
    means = seen.task_means(seen.gains)

    def gains(requests: Requests) -> Array:
        weights = np.exp((requests.sentence @ centroids.T) / setting)
        return (weights / weights.sum(axis=1, keepdims=True)) @ means

    return gains


def nearest_examples(seen: Seen, setting: int) -> Callable[[Requests], Array]:
    """Mean gains of the `setting` most alike requests, weighed by likeness."""
    gains, sentences = seen.gains, seen.requests.sentence

    def predict(requests: Requests) -> Array:
        likeness = requests.sentence @ sentences.T
        near = np.argpartition(-likeness, min(setting, likeness.shape[1] - 1), axis=1)[:, :setting]
        weights = np.clip(np.take_along_axis(likeness, near, axis=1), 1e-6, None)
        return np.einsum("nk,nka->na", weights / weights.sum(axis=1, keepdims=True), gains[near])

    return predict


def sentence_ridge(seen: Seen, setting: float) -> Callable[[Requests], Array]:
    """Ridge regression of every adapter's gain on the sentence embedding: direct, without traits."""
    X, gains = seen.requests.sentence, seen.gains
    center, mean = X.mean(axis=0), gains.mean(axis=0)
    Z = X - center
    coef = np.linalg.solve(Z.T @ Z + setting * np.eye(Z.shape[1]), Z.T @ (gains - mean))
    return lambda requests: (requests.sentence - center) @ coef + mean


def matrix_factorisation(seen: Seen, setting: int) -> Callable[[Requests], Array]:
    """Logistic bilinear model of being right: column vectors times a projection, as RouteLLM's MF router."""
    return _logistic(seen, rank=setting, shared=False)


def item_response(seen: Seen, setting: int) -> Callable[[Requests], Array]:
    """Multidimensional item-response model: abilities of columns, discrimination and difficulty from the text."""
    return _logistic(seen, rank=setting, shared=True)


def _logistic(seen: Seen, *, rank: int, shared: bool) -> Callable[[Requests], Array]:
    """P(right) = sigmoid(ability_j . project(x) + ease(x) [shared] or bias_j); gains are differences to base."""
    import torch

    generator = torch.Generator().manual_seed(0)
    X = torch.tensor(seen.requests.sentence, dtype=torch.float32)
    Y = torch.tensor(seen.scores, dtype=torch.float32)
    a, p = Y.shape[1], X.shape[1]
    project = (torch.randn(p, rank, generator=generator) / 4).requires_grad_()
    ability = (torch.randn(a, rank, generator=generator) / 4).requires_grad_()
    ease = torch.zeros(p, requires_grad=shared)
    bias = torch.zeros(a, requires_grad=True)
    weights = [project, ability, bias, *([ease] if shared else [])]
    optimizer = torch.optim.Adam(weights, lr=0.05, weight_decay=1e-3)

    def logits(x: torch.Tensor) -> torch.Tensor:
        return (x @ project) @ ability.T + bias + (x @ ease)[:, None]

    for _ in range(120):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(logits(X), Y).backward()
        optimizer.step()

    def gains(requests: Requests) -> Array:
        with torch.no_grad():
            right = torch.sigmoid(logits(torch.tensor(requests.sentence, dtype=torch.float32)))
        return (right[:, 1:] - right[:, :1]).numpy().astype(np.float64)

    return gains


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


BASELINES: dict[str, Router] = {
    "base": Settled(base),
    "random": Settled(random),
    "best single adapter": Settled(best_single),
    "nearest source (LoraRetriever)": Settled(nearest_source),
    "task mixture (LORAUTER)": Settled(task_mixture, (0.01, 0.03, 0.06, 0.1, 0.2, 0.4)),
    "nearest examples": Settled(nearest_examples, (5, 15, 50, 150)),
    "sentence ridge": Settled(sentence_ridge, (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)),
    "matrix factorisation (RouteLLM)": Settled(matrix_factorisation, (4,)),
    "item response (IRT-Router)": Settled(item_response, (4,)),
}
