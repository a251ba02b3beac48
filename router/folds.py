"""Measured requests and their features, with folds that imitate what a router meets later.

In one half of the folds new requests of profiled tasks are held out, in the other whole groups of tasks. Features are
fitted anew in each, since words that are held out must be as unseen as new ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold

from .features import RequestFeatures
from .request import N_HASHES, Request, tokens_of
from .training_profiles import TrainingProfiles, TrainingRows

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
KNOWN_FOLDS, NEW_FOLDS = 3, 12


@dataclass(frozen=True)
class Fold:
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
    """Measured requests: texts (or their tokens) and task names of length n, `gains` (n, adapters) in [-1, 1].

    `groups` (n,) names what is left out together when a new task is imitated; by default each task.
    `sources` (adapters,) are rows that each adapter was trained on, where they are known.
    """

    texts: Sequence[Request]
    tasks: Sequence[str]
    gains: Array
    groups: Sequence[str] | None = None
    sources: Sequence[TrainingRows | None] | None = None


@dataclass(frozen=True)
class FitData:
    """Requests with their features and the folds that settings are chosen on; nothing here depends on gains.

    `tasks` and `groups` (n,) are numbers; `names` are the names of the tasks.
    """

    texts: Sequence[Request]
    tasks: NDArray[np.intp]
    names: tuple[str, ...]
    groups: NDArray[np.intp]
    sources: Sequence[TrainingRows | None]
    random_state: int = 0

    @classmethod
    def of(cls, requests: FitRequests, random_state: int = 0) -> "FitData":
        """Number tasks and groups."""
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
        return RequestFeatures.fit([*self.texts, *self._prompts], random_state=self.random_state)

    @cached_property
    def rows(self) -> Array:
        """Features of all requests, (n, p)."""
        return self.features.transform(self.texts)

    @cached_property
    def words(self) -> NDArray[np.float32]:
        """The share of each task's requests that have each word, (tasks, N_HASHES)."""
        counts = np.zeros((len(self.names), N_HASHES), np.float32)
        for text, task in zip(self.texts, self.tasks, strict=True):
            counts[task, tokens_of(text).whole.places] += 1
        return counts / np.bincount(self.tasks)[:, None].astype(np.float32)

    @cached_property
    def training(self) -> TrainingProfiles:
        """What the adapters were trained on."""
        return TrainingProfiles.of(self.sources, self.features)

    @cached_property
    def evidence(self) -> Array:
        """Evidence of all requests, (n, adapters, kinds)."""
        return self.training.evidence(self.rows, self.texts)

    @cached_property
    def weights(self) -> Array:
        """Weights (n,) of mean 1: a task counts by the square root of its size."""
        weights = 1 / np.sqrt(np.bincount(self.tasks)[self.tasks])
        return weights / weights.mean()

    @cached_property
    def known(self) -> list[Fold]:
        """Folds that hold out requests of profiled tasks."""
        folds = KFold(min(KNOWN_FOLDS, len(self.tasks)), shuffle=True, random_state=self.random_state)
        return [self._fold(a, b) for a, b in folds.split(self.tasks)]

    @cached_property
    def new(self) -> list[Fold]:
        """Folds that hold out whole groups, few at a time, to imitate new kinds of request."""
        if self.groups.max() < 1:
            return self.known
        folds = GroupKFold(min(NEW_FOLDS, int(self.groups.max()) + 1))
        return [self._fold(a, b) for a, b in folds.split(self.tasks, groups=self.groups)]

    @property
    def _prompts(self) -> list[Request]:
        return [p for rows in self.sources if rows is not None for p in rows.prompts]

    def _fold(self, train: Rows, test: Rows) -> Fold:
        """A fold with features fitted anew, since words that are held out must be as unseen as new ones."""
        inside, outside = ([self.texts[i] for i in rows] for rows in (train, test))
        features, rows = self.features.refit([*inside, *self._prompts])
        X_train, X_test = rows[: len(inside)], features.transform(outside)
        profiles = TrainingProfiles.of(self.sources, features)
        return Fold(
            train,
            test,
            X_train,
            X_test,
            features.unseen_mass(X_test),
            profiles.evidence(X_train, inside),
            profiles.evidence(X_test, outside),
        )


def unseen_mass(folds: Sequence[Fold]) -> Array:
    """Unseen mass of every request where it was held out, (n,)."""
    rows = np.concatenate([f.test for f in folds])
    return np.concatenate([f.unseen for f in folds])[np.argsort(rows)]
