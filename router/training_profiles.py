"""What an adapter was trained on, as evidence of what it will do for a request of a kind that nobody profiled.

Two kinds of evidence a pair of request and adapter, each in [0, 1]. *Training prompts*: whether the ends of the request
look like the ends of the adapter's training prompts, given how much those vary. *Training answers*: how much of what
the adapter has learnt to answer is named in the request. What they are worth is learnt from measured gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .features import RequestFeatures
from .guard import sigmoid
from .request import N_HASHES, Counts, Request, tokens_of

Array = NDArray[np.float64]
KINDS = ("training prompts", "training answers")
ANSWER_WORDS = 48
"""So many of the commonest words of its answers are kept of an adapter."""

PENALTY = 0.5
STEEPNESS = 1.5
"""Log-odds of a match with the training prompts per standard deviation."""

MATCH = 0.5
"""Mean evidence from which a task counts as one that the adapter was trained for."""


@dataclass(frozen=True)
class TrainingRows:
    """Some rows an adapter was trained on: prompts, and the words of their answers."""

    prompts: Sequence[Request]
    answers: Sequence[Counts]

    @classmethod
    def read(cls, prompts: Sequence[str], answers: Sequence[str]) -> Self:
        """Read the rows' texts."""
        return cls([tokens_of(p) for p in prompts], [tokens_of(a).whole for a in answers])


@dataclass(frozen=True)
class TrainingProfiles:
    """What `a` adapters were trained on, in the features of the requests.

    `centroids` (a, edges) are unit vectors of their training prompts, zero where the training is unknown; `typical` and
    `spread` (a,) are mean and standard deviation of the cosines of those prompts with it. `words` and `shares`
    (a, ANSWER_WORDS) are the commonest words of their answers, `rarity` (N_HASHES,) how telling a word is in a request.
    """

    centroids: Array
    typical: Array
    spread: Array
    words: NDArray[np.int64]
    shares: Array
    rarity: Array

    @classmethod
    def of(cls, rows: Sequence[TrainingRows | None], features: RequestFeatures) -> Self:
        """Summarise the training rows of adapters, None where they are unknown."""
        known = [r or TrainingRows([], []) for r in rows]
        parts = [(*_typical_prompt(r.prompts, features), *_common_answers(r.answers)) for r in known]
        idf = features.whole_idf
        return cls(
            *(np.array(part) for part in zip(*parts, strict=True)),
            rarity=np.clip(idf - 1, 0, None) / max(float(idf.max()) - 1, 1e-9),
        )

    def evidence(self, features: Array, requests: Sequence[Request]) -> Array:
        """Evidence for every request and adapter, (n, a, kinds); `features` (n, p) are the requests'."""
        from scipy.sparse import csr_matrix

        whole = [tokens_of(r).whole.places for r in requests]
        ends = np.cumsum([0, *map(len, whole)])
        words = csr_matrix((np.ones(ends[-1]), np.concatenate(whole), ends), shape=(len(whole), N_HASHES))
        starts, adapters, named = self._answers
        answers = csr_matrix((named, adapters, starts), shape=(N_HASHES, len(self.words)))
        return np.stack([self.prompt_match(features), (words @ answers).toarray()], axis=2)

    def row(self, features: Array, request: Request) -> Array:
        """Evidence of one request, (a, kinds): faster than `evidence`, and without scipy."""
        places = tokens_of(request).whole.places
        starts, adapters, named = self._answers
        first = starts[places]
        counts = starts[places + 1] - first
        ends = np.cumsum(counts)
        # The entries of all words of the request, one after the other.
        entries = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + counts, counts)
        answers: Array = np.bincount(adapters[entries], named[entries], len(self.words)).astype(np.float64, copy=False)
        return np.stack([self.prompt_match(features), answers], axis=1)

    def of_tasks(self, centroids: Array, words: NDArray[np.float32]) -> Array:
        """Mean evidence of tasks, (t, a, kinds), of mean features `centroids` (t, p); `words` (t, N_HASHES) are shares
        of requests.
        """
        starts, adapters, named = self._answers
        weights = np.repeat(words, np.diff(starts), axis=1) * named
        answers = np.array([np.bincount(adapters, row, len(self.words)) for row in weights], dtype=np.float64)
        return np.stack([self.prompt_match(centroids), answers], axis=2)

    def prompt_match(self, features: Array) -> Array:
        """Evidence of the first kind alone, (..., a), for features (..., p)."""
        slope, offset = self._log_odds
        ends = _unit(features[..., -self.centroids.shape[1] :]).astype(np.float32)
        return sigmoid((ends @ slope).astype(np.float64) + offset)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Whether it is known what each adapter was trained on, (a,)."""
        return np.any(self.centroids, axis=1) | np.any(self.shares, axis=1)

    @cached_property
    def _log_odds(self) -> tuple[NDArray[np.float32], Array]:
        """Slope (edges, a) and offset (a,) from the ends of a request to the log-odds of a match.

        They are even at two standard deviations from the mean of the adapter's own prompts.
        """
        steep = STEEPNESS / self.spread
        known = np.any(self.centroids, axis=1)
        slope = np.ascontiguousarray((self.centroids * steep[:, None]).T, dtype=np.float32)
        return slope, np.where(known, 2 * STEEPNESS - self.typical * steep, -np.inf)

    @cached_property
    def _answers(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
        """What is answered, by word: where its entries start (N_HASHES + 1,), and for each entry its adapter and
        the word's share of its answers times its rarity.
        """
        adapters, columns = np.nonzero(self.shares)
        words, shares = self.words[adapters, columns], self.shares[adapters, columns]
        order = np.argsort(words, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(words, minlength=N_HASHES))])
        return starts, adapters[order], (shares * self.rarity[words])[order]

    def join(self, other: Self) -> Self:
        """These adapters followed by those of `other`, which has the same features."""
        return replace(self, **{p: np.concatenate([getattr(self, p), getattr(other, p)]) for p in self._by_adapter()})

    def take(self, rows: Sequence[int]) -> Self:
        """Some of the adapters, in that order."""
        return replace(self, **{p: getattr(self, p)[list(rows)] for p in self._by_adapter()})

    def _by_adapter(self) -> list[str]:
        return [f.name for f in fields(self) if f.name != "rarity"]


def _typical_prompt(prompts: Sequence[Request], features: RequestFeatures) -> tuple[Array, float, float]:
    width = features.edges_basis.shape[1]
    if not prompts:
        return np.zeros(width), 1.0, 1.0
    ends = _unit(features.transform(prompts)[:, -width:])
    centroid = _unit(ends.mean(axis=0))
    cosines = ends @ centroid
    return centroid, float(cosines.mean()), max(float(cosines.std()), 0.02)


def _common_answers(answers: Sequence[Counts]) -> tuple[NDArray[np.int64], Array]:
    places = np.concatenate([np.zeros(0, np.int64), *(a.places for a in answers)])
    counts = np.bincount(places, minlength=N_HASHES)
    words = np.argsort(-counts, kind="stable")[:ANSWER_WORDS]
    return words, counts[words] / max(len(places), 1)


def evidence_weights(evidence: Array, gains: Array, tasks: NDArray[np.intp]) -> Array:
    """What each kind of evidence (n, a, kinds) is worth in gain for each adapter, (a, kinds).

    All adapters share one weight, by ridge over task means. But a match with training prompts counts nothing for an
    adapter that gained nothing on such tasks: it did not learn what it was trained on. Its gains elsewhere do not make
    up for it.
    """
    names = np.unique(tasks)
    seen = np.stack([evidence[tasks == t].mean(axis=0) for t in names])
    gained = np.stack([gains[tasks == t].mean(axis=0) for t in names])
    flat = seen.reshape(-1, seen.shape[2])
    gram = flat.T @ flat + PENALTY * np.eye(flat.shape[1])
    shared: Array = np.linalg.solve(gram, flat.T @ gained.ravel()).astype(np.float64)
    weights = np.tile(shared, (seen.shape[1], 1))
    prompts = KINDS.index("training prompts")
    weights[learnt_nothing(seen[..., prompts], gained), prompts] = 0.0
    return weights


def learnt_nothing(match: Array, gains: Array) -> NDArray[np.bool_]:
    """Which adapters gained nothing on tasks that match their training prompts; mean `match` and `gains` are (tasks,
    a).
    """
    trained_for = match > MATCH
    return trained_for.any(axis=0) & ((trained_for * match * gains).sum(axis=0) <= 0)


def evidence_gains(evidence: Array, weights: Array) -> Array:
    """The gains (..., a) that `evidence` (..., a, kinds) promises by its weights (a, kinds)."""
    return np.einsum("...k,...k->...", evidence, weights)


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)
