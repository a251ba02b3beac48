"""Request features: what can be seen of a request in well under a millisecond, without any model.

Two blocks. *Surface*: length, digits, punctuation, layout and format marks, standardised over the
fitting requests. *Words*: hashed word and word-pair tf-idf, projected on the directions that the
fitting requests span. What a request has outside those directions is its `unseen_mass`: words that
no profiled task uses, hence nothing to base a prediction on.
"""

import re
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils.validation import check_is_fitted

Array = NDArray[np.float64]

MAX_CHARS = 16_000
"""Longer requests are cut to their first and last halves of this: routing time stays bounded."""

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+")
# Not `\s*`, which would run on over line ends: seconds for a page of empty lines.
_OPTION = re.compile(r"^[ \t]*\(?[A-E1-5][).:]", re.MULTILINE)
_FIELD = re.compile(r"^[ \t]*\w[\w ]{0,20}:", re.MULTILINE)


class RequestFeatures(TransformerMixin, BaseEstimator):
    """Texts to feature vectors of shape (n, surface + words); learns `idf_`, `basis_`, `center_`, `scale_`."""

    def __init__(
        self, n_components: int = 96, n_hashes: int = 2**13, random_state: int = 0
    ) -> None:
        self.n_components = n_components
        self.n_hashes = n_hashes
        self.random_state = random_state

    def fit(self, X: Sequence[str], y: Any = None) -> Self:
        """Learn from request texts `X` of shape (n,)."""
        counts = self._counts(X)
        seen_in = np.bincount(counts.indices, minlength=self.n_hashes)
        # Hashed words seen nowhere keep the highest idf: they are what makes a request novel.
        self.idf_ = np.log((1 + counts.shape[0]) / (1 + seen_in)) + 1
        words = self._tf_idf(counts)
        k = max(1, min(self.n_components, min(words.shape) - 1))
        svd = TruncatedSVD(k, random_state=self.random_state).fit(words)
        self.basis_ = svd.components_
        surface = _surface(X)
        self.center_ = surface.mean(axis=0)
        spread = surface.std(axis=0)
        # A mark that never varied says nothing; scaled by its rounding noise it would say everything.
        self.scale_ = np.where(spread > 1e-9, spread, np.inf)
        return self

    def transform(self, X: Sequence[str]) -> Array:
        """Return the features of texts `X`, shape (n, surface + words); each block has norm about 1."""
        check_is_fitted(self)
        surface = np.clip((_surface(X) - self.center_) / self.scale_, -3, 3)
        words = self._tf_idf(self._counts(X)) @ self.basis_.T
        return np.hstack([surface / np.sqrt(surface.shape[1]), words])

    def unseen_mass(self, features: Array) -> Array:
        """Share of each request's words that the fitting requests do not span, in [0, 1], shape (n,)."""
        words = features[:, len(self.center_) :]
        return np.clip(1 - np.sum(words**2, axis=1), 0, 1)

    def _counts(self, texts: Sequence[str]) -> csr_matrix:
        hasher = HashingVectorizer(
            n_features=self.n_hashes,
            ngram_range=(1, 2),
            alternate_sign=False,
            norm=None,
            token_pattern=r"(?u)\b\w+\b",
        )
        return csr_matrix(hasher.transform([_cut(t) for t in texts]))

    def _tf_idf(self, counts: csr_matrix) -> csr_matrix:
        weighted = counts.copy()
        weighted.data = (1 + np.log(weighted.data)) * self.idf_[weighted.indices]
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        weighted.data /= np.repeat(np.maximum(norms, 1e-12), np.diff(weighted.indptr))
        return weighted


def _cut(text: str) -> str:
    text = text.strip()
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else text[:half] + "\n" + text[-half:]


def _surface(texts: Sequence[str]) -> Array:
    return np.array([_surface_row(_cut(t)) for t in texts], dtype=float)


def _surface_row(text: str) -> list[float]:
    chars = max(len(text), 1)
    words = _WORD.findall(text)
    numbers = _NUMBER.findall(text)
    return [
        np.log1p(chars),
        np.log1p(len(words)),
        sum(map(len, words)) / max(len(words), 1),
        sum(map(len, numbers)) / chars,
        np.log1p(len(numbers)),
        max(map(len, numbers), default=0),
        np.log1p(text.count("\n")),
        sum(c.isupper() for c in text) / chars,
        sum(c in "(){}[]<>=;_" for c in text) / chars,
        sum(c in "+-*/=%" for c in text) / chars,
        sum(c in ",.!'\"" for c in text) / chars,
        min(text.count("?"), 3),
        len(_OPTION.findall(text)),
        len(_FIELD.findall(text)),
        float("json" in text.lower()),
        float(text.isascii()),
    ]
