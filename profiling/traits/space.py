"""Trait vectors: principal components of the gains, with the null that says how many are real.

`G ≈ 1·meanᵀ + (T·L)·scale`. With ten adapters and ten tasks even pure noise gives its first four
components a share near 84%, so a share alone is no evidence: `n_traits_` counts the leading components
whose share exceeds the 95th percentile of column-permuted gains (Horn's parallel analysis in its
permutation form).

Gains are left in their unit by default (`scaling="raw"`): ten points more are ten points on every task.
`"standardised"` divides every task's gains by their standard deviation, so that a task counts for the
pattern of its gains and not for their size; tasks that hardly move, whose spread is mostly sampling noise,
then weigh as much as those that move by 40 points.
"""

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .imputation import choose_rank, complete, noise_variance

Array = NDArray[np.float64]
Scaling = Literal["raw", "standardised"]


class TraitSpace(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """PCA of a gains matrix (adapters, tasks); NaN marks a cell that was not measured.

    Learns, with r the rank of the centred gains:

    - `mean_` (tasks,) in gains, `scale_` (tasks,): what gains are divided by, 1 for raw gains and for
      a task on which all adapters gain alike;
    - `components_` (r, tasks): loadings of length 1, their largest absolute entry positive;
    - `explained_variance_` (r,) and its shares `explained_variance_ratio_` (r,);
    - `null_`, `null_mean_` (r,): 95th percentile and mean of these shares under permutation, and
      `p_values_` (r,): (b + 1) / (n + 1) for b of n permutations that reach the share;
    - `supported_` (r,): the leading components above the null; `n_traits_`: how many, at least 1;
    - `imputation_rank_`: components that filled the missing cells, 0 for their task's mean;
    - `noise_variance_`: variance of a scaled cell that the traits leave.

    A missing cell keeps its place under permutation, and is filled there at the same rank. Of one adapter all gains are
    in `mean_`, and the one component explains nothing.
    """

    def __init__(self, *, scaling: Scaling = "raw", n_permutations: int = 1000, random_state: int | None = 0) -> None:
        self.scaling: Scaling = scaling
        self.n_permutations = n_permutations
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit gains `X` of shape (adapters, tasks).

        Raises:
            ValueError: an adapter or a task has no measured cell, or `scaling` is not known.
        """
        gains = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        check_measured(gains)
        self.scale_ = task_scale(gains, self.scaling)
        scaled = gains / self.scale_
        incomplete = bool(np.isnan(scaled).any())
        self.imputation_rank_ = choose_rank(scaled, random_state=self.random_state) if incomplete else 0
        filled = complete(scaled, self.imputation_rank_)
        self.mean_ = filled.mean(axis=0) * self.scale_
        singular, self.components_ = principal_components(filled)
        self.explained_variance_ = singular**2 / max(len(gains) - 1, 1)
        self.explained_variance_ratio_ = _shares(singular)
        self._compare(self._null_shares(scaled)[:, : len(singular)])
        self.noise_variance_ = noise_variance(singular, self.n_traits_, gains.shape)
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Trait scores of gains `X` (adapters, tasks), shape (adapters, r): what each adapter supplies.

        Gains of tasks that an adapter was not measured on are first predicted from its other tasks:
        least squares on the traits, with the fitted adapters' variances as prior, since a few tasks
        with small loadings would otherwise stand for scores beyond all bounds.

        Raises:
            ValueError: an adapter has no measured cell.
        """
        check_is_fitted(self)
        gains = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite="allow-nan")
        _refuse_empty(np.isnan(gains), 1)
        scaled = (gains - self.mean_) / self.scale_
        for i in np.flatnonzero(np.isnan(scaled).any(axis=1)):
            scaled[i] = self._predicted(scaled[i])
        return scaled @ self.components_.T

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Gains (adapters, tasks) of trait scores `X` (adapters, r)."""
        check_is_fitted(self)
        scores = check_array(X, dtype=np.float64)
        return scores @ self.components_ * self.scale_ + self.mean_

    def __sklearn_tags__(self) -> Any:
        """Say that NaN is allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _null_shares(self, scaled: Array) -> Array:
        """Shares of variance (permutations, components) when each task's gains change adapters."""
        random = check_random_state(self.random_state)
        shares = []
        for _ in range(self.n_permutations):
            filled = complete(_shuffled(scaled, random), self.imputation_rank_)
            shares.append(_shares(np.linalg.svd(filled - filled.mean(axis=0), compute_uv=False)))
        return np.array(shares)

    def _compare(self, null: Array) -> None:
        shares = self.explained_variance_ratio_
        self.null_ = np.percentile(null, 95, axis=0)
        self.null_mean_ = null.mean(axis=0)
        self.p_values_ = (np.sum(null >= shares - 1e-12, axis=0) + 1) / (len(null) + 1)
        self.supported_ = np.logical_and.accumulate(shares > self.null_)
        self.n_traits_ = max(1, int(self.supported_.sum()))

    def _predicted(self, row: Array) -> Array:
        """A centred scaled row (tasks,) with its NaN predicted from the rest."""
        known, k = ~np.isnan(row), self.n_traits_
        spread = np.sqrt(self.explained_variance_[:k])[:, None] * self.components_[:k]
        prior = np.sqrt(self.noise_variance_) * np.eye(k)
        left = np.vstack([spread[:, known].T, prior])
        right = np.concatenate([row[known], np.zeros(k)])
        return np.where(known, row, np.linalg.lstsq(left, right)[0] @ spread)


def task_scale(gains: Array, scaling: Scaling) -> Array:
    """What each task's gains are divided by, (tasks,): 1, or their standard deviation where not 0.

    Raises:
        ValueError: `scaling` is not known.
    """
    if scaling == "raw":
        return np.ones(gains.shape[1])
    if scaling == "standardised":
        return StandardScaler().fit(gains).scale_
    raise ValueError(f'scaling is "raw" or "standardised", not {scaling!r}')


def principal_components(scaled: Array) -> tuple[Array, Array]:
    """Singular values (r,) and loadings (r, tasks) of complete scaled gains, centred here; signs by rule."""
    _, singular, loadings = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
    rank = max(1, int(np.sum(singular > max(singular[0], 1e-300) * 1e-10)))
    signs = np.sign(loadings[np.arange(len(loadings)), np.abs(loadings).argmax(axis=1)])
    return singular[:rank], (loadings * np.where(signs == 0, 1, signs)[:, None])[:rank]


def check_measured(gains: Array) -> None:
    """Refuse gains in which an adapter or a task has no measured cell.

    Raises:
        ValueError: there is such an adapter or task.
    """
    _refuse_empty(np.isnan(gains), 1)
    _refuse_empty(np.isnan(gains), 0)


def _refuse_empty(missing: NDArray[np.bool_], axis: int) -> None:
    empty = np.flatnonzero(missing.all(axis=axis)).tolist()
    if empty:
        what = "adapters in rows" if axis == 1 else "tasks in columns"
        raise ValueError(
            f"no gain is measured for the {what} {empty}: measure at least one cell of each, or leave them out"
        )


def _shuffled(matrix: Array, random: np.random.RandomState) -> Array:
    """Each column's values in random order; NaN stays where it is."""
    missing = np.isnan(matrix)
    order = (random.random_sample(matrix.shape) + missing).argsort(axis=0)
    shuffled = np.empty_like(matrix)
    places = missing.argsort(axis=0, kind="stable")
    np.put_along_axis(shuffled, places, np.take_along_axis(matrix, order, axis=0), axis=0)
    return shuffled


def _shares(singular: NDArray[Any]) -> Array:
    total = float(np.sum(singular**2))
    return singular**2 / total if total > 0 else np.zeros_like(singular)
