"""Request features: a text to a vector, in well under a millisecond and without any model.

Three blocks. *Surface*, standardised over the fitting requests. *Whole* and *edges*: tf-idf of hashed words and word
pairs, of the whole text and of its ends, each projected on the directions that the fitting requests span. The share of
the ends that lies outside those directions is the request's `unseen_mass`: words that no profiled task is asked with,
hence nothing to base a prediction on.
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
    """Fitted features of requests: vectors (surface + whole + edges,), each block of norm about 1.

    `center` and `scale` (surface,) standardise the surface statistics. `whole` and `edges` each have an idf (N_HASHES,)
    and a basis (N_HASHES, components), in float32, which takes half the memory and time.
    """

    center: Array
    scale: Array
    whole_idf: Array
    whole_basis: Array32
    edges_idf: Array
    edges_basis: Array32

    @classmethod
    def fit(
        cls, requests: Sequence[Request], *, n_whole: int = 96, n_edges: int = 96, random_state: int = 0
    ) -> "RequestFeatures":
        """Learn features from requests, with so many directions of the whole text and of its edges."""

        def directions(words: "csr_matrix", n: int) -> Array32:
            from sklearn.decomposition import TruncatedSVD

            k = max(1, min(n, words.shape[0] - 1))
            # With two iterations the seed moved routing by up to four points (docs/decisions.md).
            svd = TruncatedSVD(k, n_iter=8, random_state=random_state).fit(words)
            return np.ascontiguousarray(svd.components_.T, dtype=np.float32)

        return cls._fit(requests, lambda words: directions(words, n_whole), lambda words: directions(words, n_edges))[0]

    def refit(self, requests: Sequence[Request]) -> tuple["RequestFeatures", Array]:
        """Features fitted anew on similar requests, in half the time of `fit`, and the feature vectors of these
        requests.

        Takes one step of subspace iteration from the present directions; directions that the requests do not span are
        left out.
        """
        return self._fit(
            requests,
            lambda words: _subspace_step(words, self.whole_basis),
            lambda words: _subspace_step(words, self.edges_basis),
        )

    @classmethod
    def _fit(cls, requests: Sequence[Request], whole: Directions, edges: Directions) -> tuple["RequestFeatures", Array]:
        tokens = [tokens_of(request) for request in requests]
        surface = np.array([t.surface for t in tokens])
        spread = surface.std(axis=0)
        whole_idf, whole_words = _fit_words([t.whole for t in tokens])
        edges_idf, edges_words = _fit_words([t.edges for t in tokens])
        features = RequestFeatures(
            center=surface.mean(axis=0),
            # A statistic that never varied says nothing; scaled by its rounding noise it would say everything.
            scale=np.where(spread > 1e-9, spread, np.inf),
            whole_idf=whole_idf,
            whole_basis=whole(whole_words),
            edges_idf=edges_idf,
            edges_basis=edges(edges_words),
        )
        return features, features._rows(surface, whole_words, edges_words)

    def transform(self, requests: Sequence[Request]) -> Array:
        """Features of many requests, (n, surface + whole + edges)."""
        tokens = [tokens_of(request) for request in requests]
        return self._rows(
            np.array([t.surface for t in tokens]),
            _words([t.whole for t in tokens], self.whole_idf),
            _words([t.edges for t in tokens], self.edges_idf),
        )

    def _rows(self, surface: Array, whole: "csr_matrix", edges: "csr_matrix") -> Array:
        """Features of requests from their surface statistics (n, surface) and tf-idf of words, both (n, N_HASHES)."""
        return np.hstack(
            [
                np.clip((surface - self.center) / self.scale, -3, 3) / np.sqrt(surface.shape[1]),
                (whole @ self.whole_basis).astype(np.float64),
                (edges @ self.edges_basis).astype(np.float64),
            ]
        )

    def row(self, request: Request) -> Array:
        """Features of one request, (surface + whole + edges,): faster than `transform`, and without scipy."""
        tokens = tokens_of(request)
        surface = np.clip((tokens.surface - self.center) / self.scale, -3, 3)
        blocks = [
            surface / np.sqrt(len(surface)),
            _tf_idf(tokens.whole, self.whole_idf) @ self.whole_basis.take(tokens.whole.places, axis=0),
            _tf_idf(tokens.edges, self.edges_idf) @ self.edges_basis.take(tokens.edges.places, axis=0),
        ]
        return np.concatenate(blocks, dtype=np.float64)

    def unseen_mass(self, features: Array) -> Array:
        """Share of the words at each request's ends that the fitting requests do not span, in [0, 1], (n,).

        Instructions stand at the ends: of eleven measures of novelty this separated new tasks from new requests of
        known tasks best (docs/decisions.md).
        """
        edges = features[..., len(self.center) + self.whole_basis.shape[1] :]
        return np.clip(1 - np.sum(edges**2, axis=-1), 0, 1)


def _fit_words(texts: Sequence[Counts]) -> tuple[Array, "csr_matrix"]:
    """The idf of words (N_HASHES,), and the tf-idf of `texts`."""
    seen_in = np.bincount(np.concatenate([c.places for c in texts]), minlength=N_HASHES)
    # Hashed words seen nowhere keep the highest idf: they are what makes a request novel.
    idf = np.log((1 + len(texts)) / (1 + seen_in)) + 1
    return idf, _words(texts, idf)


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
