"""From request features to what the request demands of an adapter."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

Array = NDArray[np.float64]


class DemandModel(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression from features to (mean gain, demand).

    Learns `coef_` (p, outputs) and `intercept_` (outputs,).
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit features `X` (n, p) to targets `y` (n, outputs) or (n,), rows weighted by `sample_weight` (n,)."""
        rows, targets = validate_data(
            self, X, y, multi_output=True, y_numeric=True, dtype=np.float64
        )
        weights = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        center = np.average(rows, axis=0, weights=weights)
        mean = np.average(targets, axis=0, weights=weights)
        centered = rows - center
        weighted = centered.T * weights
        gram = weighted @ centered + self.alpha * np.eye(rows.shape[1])
        self.coef_ = np.linalg.solve(gram, weighted @ (targets - mean))
        self.intercept_ = mean - center @ self.coef_
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Return predicted targets, shape (n, outputs) or (n,)."""
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        return rows @ self.coef_ + self.intercept_

    def at(self, features: Array) -> Array:
        """The targets of one vector of features (p,), shape (outputs,), without any checking."""
        return features @ self.coef_ + self.intercept_
