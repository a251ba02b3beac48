"""The demand model as a scikit-learn estimator."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.estimator_checks import parametrize_with_checks
from traitroute.router import DemandModel


@parametrize_with_checks([DemandModel()])
def test_demand_model_keeps_the_contract_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_weak_penalty_recovers_a_linear_demand() -> None:
    random = np.random.default_rng(0)
    X, weights = random.normal(size=(200, 5)), random.normal(size=(5, 3))
    model = DemandModel(alpha=1e-6).fit(X, X @ weights + 2)
    np.testing.assert_allclose(model.predict(X), X @ weights + 2, atol=1e-5)


def test_strong_penalty_falls_back_to_the_mean() -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(50, 5)), random.normal(size=50)
    np.testing.assert_allclose(DemandModel(alpha=1e9).fit(X, y).predict(X), y.mean(), atol=1e-6)


def test_a_row_of_twice_the_weight_counts_as_two() -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(30, 4)), random.normal(size=(30, 2))
    twice = DemandModel().fit(np.vstack([X, X[:5]]), np.vstack([y, y[:5]]))
    weighted = DemandModel().fit(X, y, np.repeat([2.0, 1.0], [5, 25]))
    np.testing.assert_allclose(weighted.predict(X), twice.predict(X))
