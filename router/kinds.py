"""The kinds of request that were profiled, and how much each of them speaks for a request.

A kind is a task: requests in one wording. How like two requests are is the mean of how like they are in words and in
meaning. What adapters gain on a request is what they gain in *general*, on all kinds, each group alike, and how kinds
that are *near* differ from that: the posterior mean of a Gaussian process whose covariance is that likeness
(Rasmussen and Williams, 2006, section 2.2; kriging, in geostatistics). So ten wordings of one task count little more
than one, a kind that is far from all others says nothing of them, and a request that is like nothing profiled is told
what holds in general. Both are shares laid on the kinds, so they do not depend on what was measured there.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]
VIEWS = ("general", "near")

REACH = np.array([[0.5], [0.1]], np.float32)
"""Likeness goes by exp(-(1 - cosine) / reach), in words and in meaning."""
WEIGHTS = np.array([0.5, 0.5], np.float32)
"""Of words and of meaning; they sum to one."""
NOISE = 0.4
"""Variance of a kind's mean gain that is chance, of ten requests, where that among kinds is 1."""


@dataclass(frozen=True)
class Kinds:
    """`k` kinds of request: mean `words` (k, ends) and `meaning` (k, meaning), unit vectors, of their `counts` (k,)
    requests.

    `general` (k,) are shares that sum to one, alike for each group, and within it for each kind. `typical` (2,) are the
    mean cosines of requests with their own kind, in words and in meaning.
    """

    words: Array32
    meaning: Array32
    counts: NDArray[np.int64]
    general: Array
    typical: Array

    @classmethod
    def of(cls, ends: Array, meaning: Array, kinds: NDArray[np.intp], groups: NDArray[np.intp]) -> Self:
        """The kinds of requests with these features (n, ...); `kinds` and `groups` (n,) are numbers, the former all
        from 0."""
        counts = np.bincount(kinds)
        first = np.array([np.flatnonzero(kinds == k)[0] for k in range(len(counts))])
        _, of_kind, sizes = np.unique(groups[first], return_inverse=True, return_counts=True)
        general = 1 / (len(sizes) * sizes[of_kind])
        words = unit(ends)
        middles = [_middles(vectors, kinds, len(counts)) for vectors in (words, meaning)]
        typical = [
            np.sum(vectors * middle[kinds], axis=1).mean()
            for vectors, middle in zip((words, meaning), middles, strict=True)
        ]
        return cls(middles[0], middles[1], counts, general, np.clip(typical, 0.1, 1.0))

    def likeness(self, ends: Array, meaning: Array) -> Array:
        """How like requests are to each kind, (..., k), from 0 to 1."""
        return self.likeness_to(self.words, self.meaning, ends, meaning)

    def likeness_to(
        self, middles: Array32, middle_meanings: Array32, ends: Array, meaning: Array, *, single: bool = False
    ) -> Array:
        """How like requests are to other kinds with these middles, unit vectors (m, ends) and (m, meaning); with
        `single` each of these is a request itself, and two are less like each other than each is to their middle."""
        typical = (self.typical**2 if single else self.typical).astype(np.float32)[:, None]
        return likeness(ends, meaning, middles, middle_meanings, typical).astype(np.float64)

    def shares(self, likeness: Array) -> tuple[Array, Array]:
        """How much each kind speaks for requests (..., views, k), and the share of the variance of gains that the kinds
        leave unexplained (...), from 0 to 1.

        In general the shares are one in sum; those by how near kinds differ from that are zero in sum.
        """
        near, unknown = self.near(likeness)
        return np.stack([np.broadcast_to(self.general, near.shape), near], axis=-2), unknown

    def near(self, likeness: Array) -> tuple[Array, Array]:
        """The same, of the second view alone, (..., k)."""
        near = likeness @ self._precision
        unknown = np.maximum(1 - (near * likeness).sum(axis=-1), 0.0)
        near -= near.sum(axis=-1, keepdims=True) * self.general
        return near, unknown

    @cached_property
    def alike(self) -> Array:
        """How like the kinds are to each other, (k, k)."""
        return _likeness(np.stack([m @ m.T for m in (self.words, self.meaning)], axis=1)).astype(np.float64)

    @cached_property
    def _precision(self) -> Array:
        """The inverse covariance of the kinds' mean gains, (k, k)."""
        return np.asarray(np.linalg.inv(self.alike + np.diag(NOISE * np.sqrt(10 / self.counts))), np.float64)


def likeness(ends: Array, meaning: Array, words: Array32, meanings: Array32, typical: Array32) -> Array32:
    """How like requests with the features (..., ends), (..., meaning) are to k places, (..., k), from 0 to 1.

    The places have mean `words` (k, ends) and `meanings` (k, meaning), unit vectors, with which their own requests have
    the `typical` cosines, (2, 1) or (2, k): a request as near as these is fully like them.
    """
    # Of ten thousand adapters numbers of half the length take half the time.
    cosines = np.empty((*ends.shape[:-1], 2, len(words)), np.float32)
    np.matmul(unit(ends).astype(np.float32), words.T, out=cosines[..., 0, :])
    np.matmul(meaning.astype(np.float32), meanings.T, out=cosines[..., 1, :])
    cosines /= typical
    return _likeness(cosines)


def unit(vectors: Array) -> Array:
    """Vectors (..., d) made of length one; those of length zero stay."""
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True)), 1e-12)


def _likeness(cosines: Array32) -> Array32:
    """Likeness (..., k) by the `cosines` (..., 2, k) in words and in meaning, which are overwritten."""
    np.minimum(cosines, 1.0, out=cosines)
    cosines -= 1.0
    cosines /= REACH
    return WEIGHTS @ np.exp(cosines, out=cosines)


def _middles(vectors: Array, kinds: NDArray[np.intp], count: int) -> Array32:
    means = np.array([vectors[kinds == k].mean(axis=0) for k in range(count)])
    return np.ascontiguousarray(unit(means), dtype=np.float32)
