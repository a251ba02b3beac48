"""What an adapter was trained on, as evidence of what it will do for a request that nobody profiled.

Two pieces of evidence a pair of request and adapter, each in [0, 1]. *Home*: whether the ends of the request look
like the ends of the adapter's training prompts, in the spread of those prompts themselves. *Answers*: how much
of what the adapter has learnt to answer is named in the request. Their weights are learnt from measured gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import expit

from .features import Request, RequestFeatures, read_request
from .request_tokens import N_HASHES, Counts

Array = NDArray[np.float64]
KINDS = ("home", "answers")
ANSWER_WORDS = 48
PENALTY = 0.5
STEEPNESS = 1.5
"""Log-odds of home a deviation."""
AT_HOME = 0.5
"""Mean evidence from which a task counts as an adapter's home."""


@dataclass(frozen=True)
class TrainingRows:
    """Some rows an adapter was trained on: prompts, and the words of their answers."""

    prompts: Sequence[Request]
    answers: Sequence[Counts]

    @classmethod
    def read(cls, prompts: Sequence[str], answers: Sequence[str]) -> Self:
        """Read the rows' texts."""
        return cls([read_request(p) for p in prompts], [read_request(a).whole for a in answers])


@dataclass(frozen=True)
class TrainingProfiles:
    """Where a adapters are at home, in the features they were fitted with.

    `centroids` (a, edges) are unit vectors of zero for an adapter of unknown training; `typical` and `spread` (a,) are
    the cosines of its own prompts; `words` and `shares` (a, ANSWER_WORDS) are what it answers, `rarity` (N_HASHES,)
    how telling a word is in a request.
    """

    centroids: Array
    typical: Array
    spread: Array
    words: NDArray[np.int64]
    shares: Array
    rarity: Array

    @classmethod
    def of(cls, rows: Sequence[TrainingRows | None], features: RequestFeatures) -> Self:
        """Read the homes of adapters off their training rows."""
        found = [_home(r, features) for r in rows]
        idf = features.whole_idf_
        return cls(
            *(np.array(part) for part in zip(*found, strict=True)),
            rarity=np.clip(idf - 1, 0, None) / max(float(idf.max()) - 1, 1e-9),
        )

    def evidence(self, features: Array, requests: Sequence[Request]) -> Array:
        """Evidence for every request and adapter, (n, a, 2); `features` (n, p) are the requests'."""
        whole = [read_request(r).whole.places for r in requests]
        ends = np.cumsum([0, *map(len, whole)])
        places = np.concatenate(whole)
        named = csr_matrix((self.rarity[places], places, ends), shape=(len(whole), N_HASHES))
        return np.stack([self.home(features), (named @ self._answers.T).toarray()], axis=2)

    def row(self, features: Array, request: Request) -> Array:
        """Evidence of one request, (a, 2): `evidence` without its cost for many."""
        named = np.zeros(N_HASHES)
        places = read_request(request).whole.places
        named[places] = self.rarity[places]
        return np.stack([self.home(features), self._answers @ named], axis=1)

    def of_tasks(self, centroids: Array, words: NDArray[np.float32]) -> Array:
        """Mean evidence of tasks, (t, a, 2), of mean features `centroids` (t, p); `words` (t, N_HASHES) are shares of requests."""
        answers = (self._answers @ (words * self.rarity).T).T
        return np.stack([self.home(centroids), answers], axis=2)

    def home(self, features: Array) -> Array:
        """Evidence of the first kind alone, (..., a), for features (..., p)."""
        nearer, offset = self._nearness
        ends = _unit(features[..., -self.centroids.shape[1] :]).astype(np.float32)
        return expit((ends @ nearer).astype(np.float64) + offset)

    @cached_property
    def _nearness(self) -> tuple[NDArray[np.float32], Array]:
        """What takes the ends of a request to the log-odds of home, (edges, a) and (a,).

        They are even at two deviations from the mean of the adapter's own prompts.
        """
        steep = STEEPNESS / self.spread
        known = np.any(self.centroids, axis=1)
        nearer = np.ascontiguousarray((self.centroids * steep[:, None]).T, dtype=np.float32)
        return nearer, np.where(known, 2 * STEEPNESS - self.typical * steep, -np.inf)

    @cached_property
    def _answers(self) -> csr_matrix:
        """What each adapter answers, (a, N_HASHES)."""
        rows, width = self.words.shape
        ends = np.arange(0, rows * width + 1, width)
        # Copied, since dropping zeros moves what is left in place.
        answers = csr_matrix((self.shares.ravel(), self.words.ravel(), ends), shape=(rows, N_HASHES), copy=True)
        answers.eliminate_zeros()
        return answers

    def join(self, other: Self) -> Self:
        """These homes followed by `other`, which were read in the same features."""
        parts = ("centroids", "typical", "spread", "words", "shares")
        both = {p: np.concatenate([getattr(self, p), getattr(other, p)]) for p in parts}
        return replace(self, **both)

    def take(self, rows: Sequence[int]) -> Self:
        """The homes of some of the adapters."""
        kept = list(rows)
        return replace(
            self,
            centroids=self.centroids[kept],
            typical=self.typical[kept],
            spread=self.spread[kept],
            words=self.words[kept],
            shares=self.shares[kept],
        )


def _home(rows: TrainingRows | None, features: RequestFeatures) -> tuple[Array, float, float, NDArray[np.int64], Array]:
    rows = rows or TrainingRows([], [])
    return (*_at_home(rows.prompts, features), *_answered(rows.answers))


def _at_home(prompts: Sequence[Request], features: RequestFeatures) -> tuple[Array, float, float]:
    width = features.edges_basis_.shape[1]
    if not prompts:
        return np.zeros(width), 1.0, 1.0
    ends = _unit(features.transform(prompts)[:, -width:])
    centroid = _unit(ends.mean(axis=0))
    likeness = ends @ centroid
    return centroid, float(likeness.mean()), max(float(likeness.std()), 0.02)


def _answered(answers: Sequence[Counts]) -> tuple[NDArray[np.int64], Array]:
    found = np.concatenate([np.zeros(0, np.int64), *(a.places for a in answers)])
    shares = np.bincount(found, minlength=N_HASHES)
    words = np.argsort(-shares, kind="stable")[:ANSWER_WORDS]
    return words, shares[words] / max(len(found), 1)


def home_weights(evidence: Array, gains: Array, tasks: NDArray[np.intp]) -> Array:
    """What each kind of evidence (n, a, kinds) is worth in gain for each adapter, (a, kinds).

    All adapters share one worth, by ridge over task means. But being at home speaks for none that was measured at home
    and gained nothing there: what it was trained on, it did not learn. What it gained elsewhere does not make up for it.
    """
    names = np.unique(tasks)
    seen = np.stack([evidence[tasks == t].mean(axis=0) for t in names])
    gained = np.stack([gains[tasks == t].mean(axis=0) for t in names])
    flat = seen.reshape(-1, seen.shape[2])
    gram = flat.T @ flat + PENALTY * np.eye(flat.shape[1])
    shared: Array = np.linalg.solve(gram, flat.T @ gained.ravel()).astype(np.float64)
    worth = np.tile(shared, (seen.shape[1], 1))
    worth[learnt_nothing(seen[..., KINDS.index("home")], gained), KINDS.index("home")] = 0.0
    return worth


def learnt_nothing(home: Array, gains: Array) -> NDArray[np.bool_]:
    """Which adapters were measured at home and gained nothing there; mean evidence and gains are (tasks, a)."""
    at_home = home > AT_HOME
    return at_home.any(axis=0) & ((at_home * home * gains).sum(axis=0) <= 0)


def worth_of(evidence: Array, weights: Array) -> Array:
    """The gain that `evidence` (..., a, kinds) promises, (..., a)."""
    return np.einsum("...k,...k->...", evidence, weights)


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)
