"""Trait vectors: principal components of the gains, with the null that says how many are real.

`G ≈ 1·meanᵀ + T·L`. With ten adapters and ten tasks even pure noise gives its first four components a
share near 84%, so a share alone is no evidence: `n_traits_` counts the leading components whose share
exceeds the 95th percentile of column-permuted gains (Horn's parallel analysis in its permutation form).
"""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

Array = NDArray[np.float64]


class TraitSpace(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """PCA of a gains matrix (adapters, tasks).

    Learns `mean_` (tasks,), `components_` (r, tasks): loadings with their largest absolute entry
    positive; `explained_variance_ratio_` (r,), `null_` (r,): the 95th percentile under permutation, and
    `n_traits_`, at least 1. r is the rank of the centred gains.
    """

    def __init__(self, n_permutations: int = 1000, random_state: int | None = 0) -> None:
        self.n_permutations = n_permutations
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit gains `X` of shape (adapters, tasks)."""
        gains = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self.mean_ = gains.mean(axis=0)
        centered = gains - self.mean_
        _, singular, loadings = np.linalg.svd(centered, full_matrices=False)
        rank = max(1, int(np.sum(singular > max(singular[0], 1e-300) * 1e-10)))
        signs = np.sign(loadings[np.arange(len(loadings)), np.abs(loadings).argmax(axis=1)])
        self.components_ = (loadings * np.where(signs == 0, 1, signs)[:, None])[:rank]
        self.explained_variance_ratio_ = _shares(singular)[:rank]
        self.null_ = self._null(centered)[:rank]
        above = self.explained_variance_ratio_ > self.null_
        self.n_traits_ = max(1, int(np.argmin(above)) if not above.all() else rank)
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Trait scores of gains `X` (adapters, tasks), shape (adapters, r): what each adapter supplies."""
        check_is_fitted(self)
        gains = validate_data(self, X, reset=False, dtype=np.float64)
        return (gains - self.mean_) @ self.components_.T

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _null(self, centered: Array) -> Array:
        """95th percentile of variance shares when each task's gains are shuffled over the adapters."""
        random = check_random_state(self.random_state)
        shares = [
            _shares(np.linalg.svd(_shuffled(centered, random), compute_uv=False))
            for _ in range(self.n_permutations)
        ]
        return np.percentile(shares, 95, axis=0)


def _shuffled(matrix: Array, random: np.random.RandomState) -> Array:
    order = random.random_sample(matrix.shape).argsort(axis=0)
    return np.take_along_axis(matrix, order, axis=0)


def _shares(singular: NDArray[Any]) -> Array:
    total = float(np.sum(singular**2))
    return singular**2 / total if total > 0 else np.zeros_like(singular)
