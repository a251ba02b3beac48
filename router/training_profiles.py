"""What an adapter was trained on, as evidence of what it will do for a request of a kind that nobody profiled.

Two kinds of evidence a pair of request and adapter, each in [0, 1]. *Training prompts*: how like the request is to the
adapter's training prompts, as it is like a profiled kind (`kinds.py`); to the nearest of them, where they are of many
kinds. *Training answers*: how much of what the adapter has learnt to answer is named in the request. What they are
worth is learnt from measured gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .features import RequestFeatures
from .kinds import Array32, Kinds, likeness, unit
from .request import N_HASHES, Counts, Request, tokens_of

Array = NDArray[np.float64]
KINDS = ("training prompts", "training answers")
ANSWER_WORDS = 48
"""So many of the commonest words of its answers are kept of an adapter."""

PLACES = (1, 2, 4, 8)
NEAR = 0.75
"""As few places of these numbers stand for an adapter's prompts as lie near them: by this mean cosine in meaning."""
IN_ALL = 2_000
"""So many places a fleet has, and one for each adapter: a decision looks at all of them."""

SHORT = 128
"""So much of a meaning vector is kept of training prompts, and compared: half the time and memory, and no worse
choices (docs/decisions.md). Token vectors have what tells most first."""

MATCH = 0.9
"""Mean evidence from which a task counts as one that the adapter was trained for: about as near as its own."""

DOUBT = 0.4
"""Share of the variance that kinds leave unexplained of a request from which training tells as much as it can."""


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

    Adapter after adapter each has so many `places` (a,), at least one: `prompts` (p, ends) and `meanings` (p, SHORT)
    are the mean words and meaning of training prompts that are alike, unit vectors, zero where the training is unknown;
    `typical` (p, 2) are the mean cosines of those prompts with them. `words` and `shares` (a, ANSWER_WORDS) are the
    commonest words of their answers, `rarity` (N_HASHES,) how telling a word is in a request.
    """

    prompts: Array32
    meanings: Array32
    typical: Array
    places: NDArray[np.int64]
    words: NDArray[np.int64]
    shares: Array
    rarity: Array

    @classmethod
    def of(cls, rows: Sequence[TrainingRows | None], features: RequestFeatures, *, room: int = IN_ALL) -> Self:
        """Summarise the training rows of adapters, None where they are unknown, in places for which there is `room`."""
        known = [r or TrainingRows([], []) for r in rows]
        most = max(1, room // max(len(known), 1))
        found = [_places(r.prompts, features, most) for r in known]
        prompts, meanings, typical = (np.concatenate(part) for part in zip(*found, strict=True))
        words, shares = (np.array(part) for part in zip(*(_common_answers(r.answers) for r in known), strict=True))
        places = np.array([len(each) for each, _, _ in found])
        return cls(prompts, meanings, typical, places, words, shares, features.rarity)

    def evidence(self, ends: Array, meaning: Array, requests: Sequence[Request]) -> Array:
        """Evidence for every request and adapter, (n, a, kinds), by the requests' features (n, ends), (n, meaning)."""
        from scipy.sparse import csr_matrix

        whole = [tokens_of(r).whole.places for r in requests]
        starts = np.cumsum([0, *map(len, whole)])
        words = csr_matrix((np.ones(starts[-1]), np.concatenate(whole), starts), shape=(len(whole), N_HASHES))
        places, adapters, named = self._answers
        answers = csr_matrix((named, adapters, places), shape=(N_HASHES, len(self.words)))
        return np.stack([self.prompt_match(ends, meaning), (words @ answers).toarray()], axis=2)

    def row(self, ends: Array, meaning: Array, request: Request) -> Array:
        """Evidence of one request, (a, kinds): faster than `evidence`, and without scipy."""
        places = tokens_of(request).whole.places
        starts, adapters, named = self._answers
        first = starts[places]
        counts = starts[places + 1] - first
        last = np.cumsum(counts)
        # The entries of all words of the request, one after the other.
        entries = np.arange(last[-1] if len(last) else 0) + np.repeat(first - last + counts, counts)
        evidence = np.empty((len(self.words), 2))
        evidence[:, 0] = self.prompt_match(ends, meaning)
        evidence[:, 1] = np.bincount(adapters[entries], named[entries], len(self.words))
        return evidence

    def prompt_match(self, ends: Array, meaning: Array) -> Array:
        """Evidence of the first kind alone, (..., a), by the features of requests (..., ends), (..., meaning)."""
        near = likeness(ends, _short(meaning), self.prompts, self.meanings, self._typical)
        return np.maximum.reduceat(near, self._starts, axis=-1) * self._has_prompts.astype(np.float64)

    def match_kinds(self, kinds: Kinds) -> Array:
        """Evidence of the first kind for the requests of `kinds`, (kinds, a)."""
        return self.prompt_match(kinds.words.astype(np.float64), kinds.meaning.astype(np.float64))

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Whether it is known what each adapter was trained on, (a,)."""
        return self._has_prompts | np.any(self.shares, axis=1)

    @cached_property
    def _has_prompts(self) -> NDArray[np.bool_]:
        return np.any(self.prompts[self._starts], axis=1)

    @cached_property
    def _typical(self) -> Array32:
        """The typical cosines in words and in meaning, (2, p)."""
        return np.ascontiguousarray(self.typical.T, np.float32)

    @cached_property
    def _starts(self) -> NDArray[np.intp]:
        """Where each adapter's places start, (a,)."""
        return np.cumsum(self.places) - self.places

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
        parts = (*_BY_PLACE, *_BY_ADAPTER)
        return replace(self, **{p: np.concatenate([getattr(self, p), getattr(other, p)]) for p in parts})

    def take(self, rows: Sequence[int]) -> Self:
        """Some of the adapters, in that order."""
        kept, starts = np.asarray(rows, np.intp), self._starts
        of = np.concatenate([np.arange(starts[i], starts[i] + self.places[i]) for i in kept] or [kept])
        taken = {p: getattr(self, p)[of] for p in _BY_PLACE} | {p: getattr(self, p)[kept] for p in _BY_ADAPTER}
        return replace(self, **taken)


_BY_PLACE, _BY_ADAPTER = ("prompts", "meanings", "typical"), ("places", "words", "shares")


def learnt(match: Array, gains: Array) -> NDArray[np.bool_]:
    """Which adapters (a,) learnt what they were trained on, as far as is known.

    That is, not those that lost on the kinds that match their training prompts: `match` and `gains` are (kinds, a).
    Their gains elsewhere do not make up for it.
    """
    return np.sum((match > MATCH) * match * gains, axis=0) >= 0


def in_doubt(unknown: Array) -> Array:
    """How far training tells of requests (...) of which kinds leave the share `unknown` (...) of the variance
    unexplained, from 0 to 1: what was measured on such requests tells more than what an adapter was trained for."""
    return np.minimum(unknown / DOUBT, 1.0) ** 2


def _places(prompts: Sequence[Request], features: RequestFeatures, most: int) -> tuple[Array32, Array32, Array]:
    """Words (p, ends), meanings (p, meaning) and typical cosines (p, 2) of an adapter's places, `most` at the most."""
    ends, meaning = features.split(features.transform(prompts or [""]))
    meaning = _short(meaning)
    if not prompts:
        return np.zeros_like(ends, np.float32), np.zeros_like(meaning, np.float32), np.ones((1, 2))
    place = _alike(meaning, most)
    found = []
    for each in np.unique(place):
        members = place == each
        one_kind = np.zeros(members.sum(), np.intp)
        found.append(Kinds.of(ends[members], meaning[members], one_kind, one_kind))
    words, meanings = (np.concatenate(part) for part in zip(*((k.words, k.meaning) for k in found), strict=True))
    return words, meanings, np.array([k.typical for k in found])


def _short(meaning: Array) -> Array:
    return unit(meaning[..., :SHORT])


def _alike(meaning: Array, most: int) -> NDArray[np.intp]:
    """To which of as few clusters as will do, and `most` at the most, vectors (n, meaning) belong, (n,)."""
    from sklearn.cluster import KMeans

    place = np.zeros(len(meaning), np.intp)
    for count in (count for count in PLACES if 1 < count <= most):
        middles = unit(np.array([meaning[place == each].mean(axis=0) for each in range(max(place) + 1)]))
        if np.sum(meaning * middles[place], axis=1).mean() >= NEAR:
            break
        # Vectors of the same prompt may differ by rounding.
        distinct = len(np.unique(meaning.round(6), axis=0))
        place = KMeans(min(count, distinct), n_init=1, random_state=0).fit(meaning).labels_.astype(np.intp)
    return place


def _common_answers(answers: Sequence[Counts]) -> tuple[NDArray[np.int64], Array]:
    places = np.concatenate([np.zeros(0, np.int64), *(a.places for a in answers)])
    counts = np.bincount(places, minlength=N_HASHES)
    words = np.argsort(-counts, kind="stable")[:ANSWER_WORDS]
    return words, counts[words] / max(len(places), 1)
