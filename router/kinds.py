"""The kinds of request that were profiled, and how much each of them speaks for a request.

A kind is a task: requests in one wording. What is known of a request is what adapters gained on kinds like it, seen in
four ways. *General*: all kinds, each group alike; what adapters gain on most things, whatever is asked. *Words*: the
kinds asked in words like its own. *Meaning*: the kinds nearest in meaning. *Subject*: the same more broadly. Each view
is a share of one, laid on the kinds.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]
VIEWS = ("general", "words", "meaning", "subject")
SHARPNESS = {"words": 20.0, "meaning": 40.0, "subject": 12.0}
"""Shares go by exp(sharpness * cosine)."""


@dataclass(frozen=True)
class Kinds:
    """`k` kinds of request: mean `words` (k, ends) and `meaning` (k, meaning), unit vectors, of their requests.

    `general` (k,) are shares that sum to one, alike for each group, and within it for each kind.
    """

    words: Array32
    meaning: Array32
    general: Array

    @classmethod
    def of(cls, ends: Array, meaning: Array, kinds: NDArray[np.intp], groups: NDArray[np.intp]) -> Self:
        """The kinds of requests with these features (n, ...); `kinds` and `groups` (n,) are numbers, the former all
        from 0."""
        count = int(kinds.max()) + 1
        first = np.array([np.flatnonzero(kinds == k)[0] for k in range(count)])
        _, of_kind, sizes = np.unique(groups[first], return_inverse=True, return_counts=True)
        general = 1 / (len(sizes) * sizes[of_kind])
        return cls(_middles(unit(ends), kinds, count), _middles(meaning, kinds, count), general)

    def shares(self, ends: Array, meaning: Array) -> tuple[Array, Array]:
        """How much each kind speaks for requests in each view (..., views, k), and how unlike to them the nearest is
        (..., 2), by words and by meaning, from 0 to 2."""
        words = (unit(ends).astype(np.float32) @ self.words.T).astype(np.float64)
        means = (meaning.astype(np.float32) @ self.meaning.T).astype(np.float64)
        views = [
            np.broadcast_to(self.general, words.shape),
            _softmax(SHARPNESS["words"] * words),
            _softmax(SHARPNESS["meaning"] * means),
            _softmax(SHARPNESS["subject"] * means),
        ]
        return np.stack(views, axis=-2), 1 - np.stack([words.max(axis=-1), means.max(axis=-1)], axis=-1)


def unit(vectors: Array) -> Array:
    """Vectors (..., d) made of length one; those of length zero stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)


def _middles(vectors: Array, kinds: NDArray[np.intp], count: int) -> Array32:
    means = np.array([vectors[kinds == k].mean(axis=0) for k in range(count)])
    return np.ascontiguousarray(unit(means), dtype=np.float32)


def _softmax(values: Array) -> Array:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
