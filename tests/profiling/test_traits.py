"""Traits are found where they were planted, and only there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.utils.estimator_checks import parametrize_with_checks
from traitroute.profiling.traits import TraitSpace


def planted(rank: int, *, noise: float = 0.02, seed: int = 0) -> NDArray[np.float64]:
    """Gains of 10 adapters on 12 tasks; each trait is in half the adapters and moves its own tasks."""
    supply = np.array([[1, 1, 1, 1, 1, -1, -1, -1, -1, -1], [1, -1] * 5])[:rank]
    demand = np.array([[1, -1] * 3 + [0, 0] * 3, [0, 0] * 3 + [1, 1] * 3])[:rank] * 0.3
    return supply.T @ demand + np.random.default_rng(seed).normal(scale=noise, size=(10, 12))


@parametrize_with_checks([TraitSpace(n_permutations=10)])
def test_trait_space_keeps_the_contract_of_scikit_learn(
    estimator: Any, check: Callable[[Any], None]
) -> None:
    check(estimator)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_planted_traits_are_counted(rank: int, seed: int) -> None:
    traits = TraitSpace(n_permutations=200).fit(planted(rank, seed=seed))
    assert traits.n_traits_ == rank
    assert traits.explained_variance_ratio_[:rank].sum() > 0.9


def test_planted_loading_is_recovered() -> None:
    gains = planted(1)
    loading = TraitSpace(n_permutations=10).fit(gains).components_[0]
    _, _, directions = np.linalg.svd(planted(1, noise=0.0))
    assert abs(loading @ directions[0]) > 0.98


def test_pure_noise_has_a_large_share_and_still_only_the_least_number_of_traits() -> None:
    noise = np.random.default_rng(1).normal(size=(10, 12))
    traits = TraitSpace(n_permutations=200).fit(noise)
    assert traits.explained_variance_ratio_[:4].sum() > 0.6
    assert traits.explained_variance_ratio_[0] < traits.null_[0]
    assert traits.n_traits_ == 1  # the minimum: here no component is above the null


def test_largest_entry_of_every_loading_is_positive() -> None:
    for gains in (planted(2), -planted(2)):
        loadings = TraitSpace(n_permutations=10).fit(gains).components_
        assert all(row[np.abs(row).argmax()] > 0 for row in loadings)


def test_new_adapter_is_placed_where_the_fit_would_have_placed_it() -> None:
    gains = planted(2)
    traits = TraitSpace(n_permutations=10)
    fitted = traits.fit_transform(gains)
    np.testing.assert_allclose(traits.transform(gains[3:4])[0], fitted[3])
    rebuilt = traits.mean_ + fitted @ traits.components_
    np.testing.assert_allclose(rebuilt, gains, atol=1e-9)


def test_same_seed_gives_the_same_fit() -> None:
    a, b = (TraitSpace(n_permutations=50, random_state=3).fit(planted(2)) for _ in range(2))
    np.testing.assert_array_equal(a.null_, b.null_)
    np.testing.assert_array_equal(a.components_, b.components_)


def test_adapters_that_all_gain_alike_have_no_variance_to_explain() -> None:
    traits = TraitSpace(n_permutations=10).fit(np.full((4, 5), 0.25))
    assert traits.n_traits_ == 1
    np.testing.assert_array_equal(traits.transform(np.full((2, 5), 0.25)), np.zeros((2, 1)))
