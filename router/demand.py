"""From request features to what the request demands of an adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Centered:
    """Weighted means of features (p,) and targets (outputs,), and the moments about them."""

    center: Array
    mean: Array
    gram: Array
    moment: Array

    @classmethod
    def of(cls, rows: Array, targets: Array, weights: Array) -> Self:
        center = np.average(rows, axis=0, weights=weights)
        mean = np.average(targets, axis=0, weights=weights)
        centered = rows - center
        weighted = centered.T * weights
        return cls(center, mean, weighted @ centered, weighted @ (targets - mean))


def predictions(alphas: Sequence[float], rows: Array, targets: Array, weights: Array, new: Array) -> Array:
    """What a `DemandModel` of each penalty, fitted to `rows` (n, p), says of `new` (m, p); shape (alphas, m, outputs).

    One decomposition serves all penalties.
    """
    centered = _Centered.of(rows, targets, weights)
    values, axes = np.linalg.eigh(centered.gram)
    seen, moment = (new - centered.center) @ axes, axes.T @ centered.moment
    return np.stack([(seen / (values + a)) @ moment + centered.mean for a in alphas])


class DemandModel(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression from features to (mean gain, demand).

    Learns `coef_` (p, outputs) and `intercept_` (outputs,).
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit features `X` (n, p) to targets `y` (n, outputs) or (n,), rows weighted by `sample_weight` (n,)."""
        rows, targets = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        weights = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        centered = _Centered.of(rows, targets, weights)
        gram = centered.gram + self.alpha * np.eye(rows.shape[1])
        self.coef_ = np.linalg.solve(gram, centered.moment)
        self.intercept_ = centered.mean - centered.center @ self.coef_
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Return predicted targets, shape (n, outputs) or (n,)."""
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        return rows @ self.coef_ + self.intercept_

    def at(self, features: Array) -> Array:
        """The targets of one vector of features (p,), shape (outputs,), without any checking."""
        return features @ self.coef_ + self.intercept_
