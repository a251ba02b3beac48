"""Request features: a text to a vector, in well under a millisecond and without any model.

Three blocks. *Surface*, standardised over the fitting requests. *Whole* and *edges*: tf-idf of hashed words
and word pairs, of the whole text and of its ends, each projected on the directions that the fitting
requests span. What the ends have outside those directions is the request's `unseen_mass`: words that no
profiled task is asked with, hence nothing to base a prediction on.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted

from .request_tokens import N_HASHES, Counts, RequestTokens

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]


Request = str | RequestTokens
"""A request's text, or its marks where they were read already."""

Directions = Callable[[csr_matrix], Array32]
"""From the words of n requests (n, N_HASHES) to k directions, (N_HASHES, k)."""


class RequestFeatures(TransformerMixin, BaseEstimator):
    """Requests to features (n, surface + whole + edges), each block of norm about 1.

    Learns `center_`, `scale_` (surface,) and for `whole` and `edges` an idf (N_HASHES,) and a basis
    (N_HASHES, components) in float32, which takes half the memory and time.
    """

    def __init__(self, n_whole: int = 96, n_edges: int = 96, random_state: int = 0) -> None:
        self.n_whole = n_whole
        self.n_edges = n_edges
        self.random_state = random_state

    def fit(self, X: Sequence[Request], y: Any = None) -> Self:
        """Learn from requests, `X` of shape (n,)."""
        self._fit(
            X,
            lambda words: self._directions(words, self.n_whole),
            lambda words: self._directions(words, self.n_edges),
        )
        return self

    def refitted(self, X: Sequence[Request]) -> tuple["RequestFeatures", Array]:
        """Features of the same settings fitted on requests `X` that are like those of these, in half the time; and those of `X`.

        One step of subspace iteration from these directions; what `X` does not span is no part of the result.
        """
        features = RequestFeatures(**self.get_params())
        rows = features._fit(
            X,
            lambda words: _step(words, self.whole_basis_),
            lambda words: _step(words, self.edges_basis_),
        )
        return features, rows

    def _fit(self, X: Sequence[Request], whole: Directions, edges: Directions) -> Array:
        """Learn from requests, and return their features."""
        marks = [read_request(request) for request in X]
        surface = np.array([m.surface for m in marks])
        self.center_ = surface.mean(axis=0)
        spread = surface.std(axis=0)
        # A mark that never varied says nothing; scaled by its rounding noise it would say everything.
        self.scale_ = np.where(spread > 1e-9, spread, np.inf)
        self.whole_idf_, whole_words = _fit_words([m.whole for m in marks])
        self.whole_basis_ = whole(whole_words)
        self.edges_idf_, edges_words = _fit_words([m.edges for m in marks])
        self.edges_basis_ = edges(edges_words)
        return self._rows(surface, whole_words, edges_words)

    def _directions(self, words: csr_matrix, n: int) -> Array32:
        """The `n` directions that most of `words` lies in, (N_HASHES, n)."""
        k = max(1, min(n, words.shape[0] - 1))
        # With two iterations the seed moved routing by up to four points (docs/decisions.md).
        svd = TruncatedSVD(k, n_iter=8, random_state=self.random_state).fit(words)
        return np.ascontiguousarray(svd.components_.T, dtype=np.float32)

    def transform(self, X: Sequence[Request]) -> Array:
        """Return the features of requests, shape (n, surface + whole + edges)."""
        check_is_fitted(self)
        marks = [read_request(request) for request in X]
        return self._rows(
            np.array([m.surface for m in marks]),
            _words([m.whole for m in marks], self.whole_idf_),
            _words([m.edges for m in marks], self.edges_idf_),
        )

    def _rows(self, surface: Array, whole: csr_matrix, edges: csr_matrix) -> Array:
        """Features of requests with these marks (n, surface) and tf-idf of words, both (n, N_HASHES)."""
        return np.hstack(
            [
                np.clip((surface - self.center_) / self.scale_, -3, 3) / np.sqrt(surface.shape[1]),
                (whole @ self.whole_basis_).astype(np.float64),
                (edges @ self.edges_basis_).astype(np.float64),
            ]
        )

    def row(self, request: Request) -> Array:
        """The features of one request, shape (surface + whole + edges,): `transform` without its cost for many."""
        marks = read_request(request)
        surface = np.clip((marks.surface - self.center_) / self.scale_, -3, 3)
        blocks = [
            surface / np.sqrt(len(surface)),
            _tf_idf(marks.whole, self.whole_idf_) @ self.whole_basis_.take(marks.whole.places, axis=0),
            _tf_idf(marks.edges, self.edges_idf_) @ self.edges_basis_.take(marks.edges.places, axis=0),
        ]
        return np.concatenate(blocks, dtype=np.float64)

    def unseen_mass(self, features: Array) -> Array:
        """Share of the words at each request's ends that the fitting requests do not span, in [0, 1], shape (n,).

        Instructions stand at the ends: of eleven measures of novelty these told new tasks from new requests of
        known tasks best (docs/decisions.md).
        """
        edges = features[..., len(self.center_) + self.whole_basis_.shape[1] :]
        return np.clip(1 - np.sum(edges**2, axis=-1), 0, 1)


def read_request(request: Request) -> RequestTokens:
    """The marks of a request."""
    return RequestTokens.read(request) if isinstance(request, str) else request


def _fit_words(texts: Sequence[Counts]) -> tuple[Array, csr_matrix]:
    """The idf of words (N_HASHES,), and the tf-idf of `texts`."""
    seen_in = np.bincount(np.concatenate([c.places for c in texts]), minlength=N_HASHES)
    # Hashed words seen nowhere keep the highest idf: they are what makes a request novel.
    idf = np.log((1 + len(texts)) / (1 + seen_in)) + 1
    return idf, _words(texts, idf)


def _step(words: csr_matrix, start: Array32) -> Array32:
    """Directions nearer to the main ones of `words` than `start` (N_HASHES, n), orthonormal; as many as `words` spans."""
    moved = words.T @ (words @ start)
    axes, reduced = qr(moved, mode="economic", check_finite=False)
    spanned = np.abs(np.diag(reduced)) > 1e-5 * np.linalg.norm(moved, axis=0)
    return np.ascontiguousarray(axes[:, spanned], dtype=np.float32)


def _words(texts: Sequence[Counts], idf: Array) -> csr_matrix:
    """Tf-idf of many texts, (n, N_HASHES)."""
    ends = np.cumsum([0, *(len(c.places) for c in texts)])
    places = np.concatenate([c.places for c in texts])
    counts = np.concatenate([c.counts for c in texts])
    weights = ((1 + np.log(counts)) * idf[places]).astype(np.float32)
    return normalize(csr_matrix((weights, places, ends), shape=(len(texts), N_HASHES)), copy=False)


def _tf_idf(counts: Counts, idf: Array) -> Array32:
    """Weights of norm 1, or none for a text without words."""
    weights = (1 + np.log(counts.counts)) * idf[counts.places]
    return (weights / max(float(np.linalg.norm(weights)), 1e-12)).astype(np.float32)
