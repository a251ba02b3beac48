"""From request features to what the request demands of an adapter."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

Array = NDArray[np.float64]


class DemandModel(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression from features to (mean gain, demand), with the uncertainty of its own ignorance.

    Learns `coef_` (p, outputs), `intercept_` (outputs,), `center_` (p,) and `posterior_` (p, p), the
    posterior covariance of the weights relative to their prior, as in Bayesian linear regression.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit features `X` (n, p) to targets `y` (n, outputs) or (n,)."""
        rows, targets = validate_data(
            self, X, y, multi_output=True, y_numeric=True, dtype=np.float64
        )
        self.center_ = rows.mean(axis=0)
        centered = rows - self.center_
        gram = centered.T @ centered
        self.posterior_ = self.alpha * np.linalg.inv(gram + self.alpha * np.eye(len(gram)))
        self.intercept_ = targets.mean(axis=0)
        self.coef_ = self.posterior_ @ (centered.T @ (targets - self.intercept_)) / self.alpha
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Return predicted targets, shape (n, outputs) or (n,)."""
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        return (rows - self.center_) @ self.coef_ + self.intercept_

    def ignorance(self, X: ArrayLike, unseen: ArrayLike = 0.0) -> Array:
        """Variance left to a prediction at each of `X`, in units of the weights' prior, shape (n,).

        `unseen` (n,) is squared feature mass outside the fitted feature space, of which nothing is known.
        Not a share of the prior variance at `X`: that falls the further a request lies outside.
        """
        check_is_fitted(self)
        centered = validate_data(self, X, reset=False, dtype=np.float64) - self.center_
        outside = np.asarray(unseen, dtype=np.float64)
        return np.sum((centered @ self.posterior_) * centered, axis=1) + outside
