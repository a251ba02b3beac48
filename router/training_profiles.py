"""What an adapter was trained on, as evidence of what it will do for a request of a kind that nobody profiled.

Two kinds of evidence a pair of request and adapter, each in [0, 1]. *Training prompts*: how like the request is to the
adapter's training prompts, as it is like a profiled kind (`kinds.py`). *Training answers*: how much of what the adapter
has learnt to answer is named in the request. What they are worth is learnt from measured gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .features import RequestFeatures
from .kinds import Array32, Kinds, likeness
from .request import N_HASHES, Counts, Request, tokens_of

Array = NDArray[np.float64]
KINDS = ("training prompts", "training answers")
ANSWER_WORDS = 48
"""So many of the commonest words of its answers are kept of an adapter."""

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

    `prompts` (a, ends) and `meanings` (a, meaning) are the mean words and meaning of their training prompts, unit
    vectors, zero where the training is unknown; `typical` (a, 2) are the mean cosines of those prompts with them.
    `words` and `shares` (a, ANSWER_WORDS) are the commonest words of their answers, `rarity` (N_HASHES,) how telling a
    word is in a request.
    """

    prompts: Array32
    meanings: Array32
    typical: Array
    words: NDArray[np.int64]
    shares: Array
    rarity: Array

    @classmethod
    def of(cls, rows: Sequence[TrainingRows | None], features: RequestFeatures) -> Self:
        """Summarise the training rows of adapters, None where they are unknown."""
        known = [r or TrainingRows([], []) for r in rows]
        parts = [(*_typical_prompt(r.prompts, features), *_common_answers(r.answers)) for r in known]
        return cls(*(np.array(part) for part in zip(*parts, strict=True)), rarity=features.rarity)

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
        answers: Array = np.bincount(adapters[entries], named[entries], len(self.words)).astype(np.float64, copy=False)
        return np.stack([self.prompt_match(ends, meaning), answers], axis=1)

    def prompt_match(self, ends: Array, meaning: Array) -> Array:
        """Evidence of the first kind alone, (..., a), by the features of requests (..., ends), (..., meaning)."""
        return likeness(ends, meaning, self.prompts, self.meanings, self.typical) * self._has_prompts

    def match_kinds(self, kinds: Kinds) -> Array:
        """Evidence of the first kind for the requests of `kinds`, (kinds, a)."""
        return self.prompt_match(kinds.words.astype(np.float64), kinds.meaning.astype(np.float64))

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Whether it is known what each adapter was trained on, (a,)."""
        return self._has_prompts | np.any(self.shares, axis=1)

    @cached_property
    def _has_prompts(self) -> NDArray[np.bool_]:
        return np.any(self.prompts, axis=1)

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


def learnt(match: Array, gains: Array) -> NDArray[np.bool_]:
    """Which adapters (a,) learnt what they were trained on, as far as is known.

    That is, not those that gained nothing on the kinds that match their training prompts: `match` and `gains` are
    (kinds, a). Their gains elsewhere do not make up for it.
    """
    trained_for = match > MATCH
    return ~trained_for.any(axis=0) | ((trained_for * match * gains).sum(axis=0) > 0)


def _typical_prompt(prompts: Sequence[Request], features: RequestFeatures) -> tuple[Array32, Array32, Array]:
    if not prompts:
        ends, meaning = (part.astype(np.float32) for part in features.split(np.zeros_like(features.row(""))))
        return ends, meaning, np.ones(2)
    ends, meaning = features.split(features.transform(prompts))
    one_kind = np.zeros(len(prompts), np.intp)
    kind = Kinds.of(ends, meaning, one_kind, one_kind)
    return kind.words[0], kind.meaning[0], kind.typical


def _common_answers(answers: Sequence[Counts]) -> tuple[NDArray[np.int64], Array]:
    places = np.concatenate([np.zeros(0, np.int64), *(a.places for a in answers)])
    counts = np.bincount(places, minlength=N_HASHES)
    words = np.argsort(-counts, kind="stable")[:ANSWER_WORDS]
    return words, counts[words] / max(len(places), 1)
