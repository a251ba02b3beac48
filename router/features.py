"""Request features: a text to a vector, in well under a millisecond.

Two blocks. *Ends*: tf-idf of the hashed words and word pairs at both ends of the text, where instructions stand,
projected on the directions that the fitting requests span. *Meaning*: the text's static sentence vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .request import N_HASHES, Counts, Request, tokens_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]
Directions = Callable[["csr_matrix"], Array32]
"""From the tf-idf of n requests (n, N_HASHES) to k directions, (N_HASHES, k)."""


@dataclass(frozen=True)
class RequestFeatures:
    """Fitted features of requests: vectors (ends + meaning,), each block of norm about 1.

    The ends have an idf (N_HASHES,) and a basis (N_HASHES, components), in float32, which takes half the memory and
    time. `rarity` (N_HASHES,), from 0 to 1, says how telling a word is anywhere in a request.
    """

    idf: Array
    basis: Array32
    rarity: Array

    @classmethod
    def fit(cls, requests: Sequence[Request], *, n_ends: int = 96, random_state: int = 0) -> "RequestFeatures":
        """Learn features from requests, with so many directions of their ends."""

        def directions(words: "csr_matrix") -> Array32:
            from sklearn.decomposition import TruncatedSVD

            k = max(1, min(n_ends, words.shape[0] - 1))
            # With two iterations the seed moved routing by up to four points (docs/decisions.md).
            svd = TruncatedSVD(k, n_iter=8, random_state=random_state).fit(words)
            return np.ascontiguousarray(svd.components_.T, dtype=np.float32)

        return cls._fit(requests, directions)[0]

    def refit(self, requests: Sequence[Request]) -> tuple["RequestFeatures", Array]:
        """Features fitted anew on similar requests, in half the time of `fit`, and the feature vectors of these
        requests.

        Takes one step of subspace iteration from the present directions; directions that the requests do not span are
        left out.
        """
        return self._fit(requests, lambda words: _subspace_step(words, self.basis))

    @classmethod
    def _fit(cls, requests: Sequence[Request], directions: Directions) -> tuple["RequestFeatures", Array]:
        tokens = [tokens_of(request) for request in requests]
        idf = _idf([t.edges for t in tokens])
        words = _words([t.edges for t in tokens], idf)
        anywhere = _idf([t.whole for t in tokens]) - 1
        features = RequestFeatures(idf, directions(words), np.clip(anywhere, 0, None) / max(anywhere.max(), 1e-9))
        return features, features._rows(words, np.array([t.meaning for t in tokens]))

    def transform(self, requests: Sequence[Request]) -> Array:
        """Features of many requests, (n, ends + meaning)."""
        tokens = [tokens_of(request) for request in requests]
        return self._rows(_words([t.edges for t in tokens], self.idf), np.array([t.meaning for t in tokens]))

    def _rows(self, words: "csr_matrix", meaning: Array32) -> Array:
        """Features of requests from the tf-idf of their ends, (n, N_HASHES), and their meaning."""
        return np.hstack([(words @ self.basis).astype(np.float64), meaning.astype(np.float64)])

    def row(self, request: Request) -> Array:
        """Features of one request, (ends + meaning,): faster than `transform`, and without scipy."""
        tokens = tokens_of(request)
        ends = _tf_idf(tokens.edges, self.idf) @ self.basis.take(tokens.edges.places, axis=0)
        return np.concatenate([ends, tokens.meaning], dtype=np.float64)

    def same_as(self, other: "RequestFeatures") -> bool:
        """Whether requests have the same features by both."""
        return np.array_equal(self.idf, other.idf) and np.array_equal(self.basis, other.basis)

    def split(self, features: Array) -> tuple[Array, Array]:
        """The ends (..., ends) and the meaning (..., meaning) of feature vectors."""
        width = self.basis.shape[1]
        return features[..., :width], features[..., width:]


def _idf(texts: Sequence[Counts]) -> Array:
    """The idf of words, (N_HASHES,)."""
    seen_in = np.bincount(np.concatenate([c.places for c in texts]), minlength=N_HASHES)
    # Hashed words seen nowhere keep the highest idf: they are what makes a request novel.
    return np.log((1 + len(texts)) / (1 + seen_in)) + 1


def _subspace_step(words: "csr_matrix", start: Array32) -> Array32:
    """Orthonormal directions that `words` spans, nearer to its main ones than `start` (N_HASHES, n)."""
    from scipy.linalg import qr

    moved = words.T @ (words @ start)
    axes, reduced = qr(moved, mode="economic", check_finite=False)
    spanned = np.abs(np.diag(reduced)) > 1e-5 * np.linalg.norm(moved, axis=0)
    return np.ascontiguousarray(axes[:, spanned], dtype=np.float32)


def _words(texts: Sequence[Counts], idf: Array) -> "csr_matrix":
    """Tf-idf of many texts, (n, N_HASHES)."""
    # Imported here, so that routing one request needs neither (they take a second to load).
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import normalize

    ends = np.cumsum([0, *(len(c.places) for c in texts)])
    places = np.concatenate([c.places for c in texts])
    counts = np.concatenate([c.counts for c in texts])
    weights = ((1 + np.log(counts)) * idf[places]).astype(np.float32)
    return normalize(csr_matrix((weights, places, ends), shape=(len(texts), N_HASHES)), copy=False)


def _tf_idf(counts: Counts, idf: Array) -> Array32:
    """Weights (m,) of norm 1, or none for a text without words."""
    weights = (1 + np.log(counts.counts)) * idf[counts.places]
    return (weights / max(float(np.linalg.norm(weights)), 1e-12)).astype(np.float32)
