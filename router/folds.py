"""Measured requests, and what is known of each where it, its task or its group was held out.

The three ways of holding out play what a router meets later: new requests of profiled kinds, such kinds in other
words, and kinds that nobody profiled. Features are fitted anew in each, since words that are held out must be as unseen
as new ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .everyday import OtherTasks, everyday_tokens, expected_share, fit_everyday
from .features import RequestFeatures
from .kinds import Kinds
from .request import Request, tokens_of
from .training_profiles import TrainingProfiles, TrainingRows

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
KNOWN_FOLDS, REWORDED_FOLDS, NEW_FOLDS = 3, 3, 10
WAYS = ("known", "reworded", "new")


@dataclass(frozen=True)
class FitRequests:
    """Measured requests: texts (or their tokens) and task names of length n, `gains` (n, adapters) in [-1, 1].

    `groups` (n,) names what is left out together when a new kind is played; by default each task. `sources` (adapters,)
    are rows that each adapter was trained on, and `base` (n,) the base model's own scores, where they are known.
    `others` are tasks that nobody here profiled, to tell everyday requests from.
    """

    texts: Sequence[Request]
    tasks: Sequence[str]
    gains: Array
    groups: Sequence[str] | None = None
    sources: Sequence[TrainingRows | None] | None = None
    base: Array | None = None
    others: OtherTasks = field(default_factory=OtherTasks.packaged)


@dataclass(frozen=True)
class Fold:
    """What is known of requests that were held out together.

    `rows` (q,) are their places, `fitted` (n,) those of the requests fitted on, and `kinds` (n,) the numbers of the
    latter's tasks. `shares` (q, views, kinds) are those of `Kinds.shares`, so that what each view says of anything
    measured is a product, and `unknown` (q,) how much it leaves open; `evidence` (q, a, kinds) is what training rows
    say, and `match` (kinds, a) whether adapters were trained for the kinds fitted on.
    """

    rows: Rows
    fitted: Rows
    kinds: Rows
    shares: Array
    unknown: Array
    evidence: Array
    match: Array

    def means(self, values: Array) -> Array:
        """Means of `values` (n, c), of all requests, over each kind fitted on, (kinds, c)."""
        return task_means(values[self.fitted], self.kinds)

    def views(self, values: Array) -> Array:
        """What each view says of `values` (n, c) measured on all requests, (q, views, c)."""
        return self.shares @ self.means(values)


@dataclass(frozen=True)
class FitData:
    """Requests with their features and all that was held out; nothing here depends on gains.

    `tasks` and `groups` (n,) are numbers; `names` are the names of the tasks.
    """

    texts: Sequence[Request]
    tasks: Rows
    names: tuple[str, ...]
    groups: Rows
    sources: Sequence[TrainingRows | None]
    others: OtherTasks
    random_state: int = 0

    @classmethod
    def of(cls, requests: FitRequests, random_state: int = 0) -> "FitData":
        """Number tasks and groups."""
        names = tuple(dict.fromkeys(requests.tasks))
        place = {name: i for i, name in enumerate(names)}
        groups = list(requests.groups or requests.tasks)
        of_group = {name: i for i, name in enumerate(dict.fromkeys(groups))}
        return cls(
            [tokens_of(t) for t in requests.texts],
            np.array([place[t] for t in requests.tasks]),
            names,
            np.array([of_group[g] for g in groups]),
            requests.sources or [None] * requests.gains.shape[1],
            requests.others,
            random_state,
        )

    @property
    def group_count(self) -> int:
        """How many groups there are."""
        return int(self.groups.max()) + 1

    @cached_property
    def features(self) -> RequestFeatures:
        """Features fitted on all requests, and on what the adapters were trained on."""
        return RequestFeatures.fit([*self.texts, *self._prompts], random_state=self.random_state)

    @cached_property
    def vectors(self) -> Array:
        """Features of all requests, (n, p)."""
        return self.features.transform(self.texts)

    @cached_property
    def kinds(self) -> Kinds:
        """The kinds of all requests."""
        ends, meaning = self.features.split(self.vectors)
        return Kinds.of(ends, meaning, self.tasks, self.groups)

    @cached_property
    def everyday(self) -> Array:
        """By what a request is told from those of every day, (p + 1,)."""
        day, others, share = everyday_tokens(), self.others, expected_share(self.group_count)
        told = self.features.transform([*day, *others.requests])
        # Below zero, so that no two groups have one number.
        groups = np.concatenate([self.groups, -1 - others.groups.astype(np.intp)])
        return fit_everyday(told[: len(day)], np.vstack([self.vectors, told[len(day) :]]), groups, share)

    @cached_property
    def training(self) -> TrainingProfiles:
        """What the adapters were trained on."""
        return TrainingProfiles.of(self.sources, self.features)

    @cached_property
    def held_out(self) -> dict[str, list[Fold]]:
        """By the way of holding out, of those that are possible: folds that hold out every request that they can."""
        random = np.random.default_rng(self.random_state)
        found: dict[str, list[Fold]] = {}
        for name, part in zip(WAYS, (self._known, self._reworded, self._new), strict=True):
            places = part(random)
            folds = [self._fold(places == k) for k in range(int(places.max(initial=-1)) + 1)]
            if kept := [fold for fold in folds if fold is not None]:
                found[name] = kept
        return found

    def _known(self, random: np.random.Generator) -> Rows:
        """A third of each task's requests at a time, of tasks that have others."""
        order = random.permutation(len(self.tasks))
        places = np.full(len(order), -1)
        for task in range(len(self.names)):
            members = order[self.tasks[order] == task]
            if len(members) > 1:
                places[members] = (np.arange(len(members)) + random.integers(KNOWN_FOLDS)) % KNOWN_FOLDS
        return places

    def _reworded(self, random: np.random.Generator) -> Rows:
        """A third of the tasks of each group at a time, of groups that have others."""
        places = np.full(len(self.tasks), -1)
        for group in range(self.group_count):
            tasks = random.permutation(np.unique(self.tasks[self.groups == group]))
            if len(tasks) > 1:
                start = random.integers(REWORDED_FOLDS)
                for i, task in enumerate(tasks):
                    places[self.tasks == task] = (i + start) % REWORDED_FOLDS
        return places

    def _new(self, random: np.random.Generator) -> Rows:
        """Some of the groups at a time."""
        count = self.group_count
        if count < 2:
            return np.full(len(self.tasks), -1)
        return (random.permutation(count) % min(NEW_FOLDS, count))[self.groups]

    def _fold(self, out: NDArray[np.bool_]) -> Fold | None:
        inside, rows = np.flatnonzero(~out), np.flatnonzero(out)
        if not len(rows) or len(inside) < 2:
            return None
        known, asked = ([self.texts[i] for i in part] for part in (inside, rows))
        features, vectors = self.features.refit([*known, *self._prompts])
        _, tasks = np.unique(self.tasks[inside], return_inverse=True)
        kinds = Kinds.of(*features.split(vectors[: len(inside)]), tasks, self.groups[inside])
        found = features.transform(asked)
        ends, meaning = features.split(found)
        likeness = kinds.likeness(ends, meaning)
        training = TrainingProfiles.of(self.sources, features)
        evidence, match = training.evidence(ends, meaning, asked), training.match_kinds(kinds)
        return Fold(rows, inside, tasks, *kinds.shares(likeness), evidence, match)

    @property
    def _prompts(self) -> list[Request]:
        return [p for rows in self.sources if rows is not None for p in rows.prompts]


def task_means(values: Array, tasks: Rows) -> Array:
    """Means of `values` (n, c) over each task, (tasks, c); `tasks` (n,) are numbers, all from 0."""
    count = int(tasks.max()) + 1
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, tasks, values)
    return sums / np.bincount(tasks, minlength=count)[:, None]
