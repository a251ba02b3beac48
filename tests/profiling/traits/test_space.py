"""Traits are found where they were planted, and only there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest
from sklearn.utils.estimator_checks import parametrize_with_checks
from traitroute.profiling.traits.space import Scaling, TraitSpace, _shuffled

Array = NDArray[np.float64]


def planted(rank: int, *, noise: float = 0.02, seed: int = 0) -> Array:
    """Gains of 10 adapters on 12 tasks; each trait is in half the adapters and moves its own tasks."""
    supply = np.array([[1, 1, 1, 1, 1, -1, -1, -1, -1, -1], [1, -1] * 5])[:rank]
    demand = np.array([[1, -1] * 3 + [0, 0] * 3, [0, 0] * 3 + [1, 1] * 3])[:rank] * 0.3
    return supply.T @ demand + np.random.default_rng(seed).normal(scale=noise, size=(10, 12))


@parametrize_with_checks([TraitSpace(n_permutations=10), TraitSpace(scaling="standardised", n_permutations=10)])
def test_trait_space_keeps_the_contract_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
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


def without(gains: Array, share: float, *, seed: int = 0) -> Array:
    """The gains without a share of the cells."""
    hidden = np.random.default_rng(seed).random(gains.shape) < share
    return np.where(hidden, np.nan, gains)


def likeness(a: Array, b: Array) -> float:
    """Cosine of the largest angle between the spaces that the rows of `a` and of `b` span."""
    return float(np.linalg.svd(a @ b.T, compute_uv=False).min())


def test_p_values_count_the_permutations_that_reach_a_share() -> None:
    traits = TraitSpace(n_permutations=99).fit(planted(1))
    assert traits.p_values_[0] == 1 / 100  # none does: never 0
    assert traits.p_values_[1:].min() > 0.05
    assert traits.supported_.tolist() == [True] + [False] * (len(traits.p_values_) - 1)
    assert (traits.null_mean_[:3] < traits.null_[:3]).all()


@pytest.mark.slow
def test_p_values_of_noise_are_evenly_spread() -> None:
    random = np.random.default_rng(0)
    fits = [TraitSpace(n_permutations=99).fit(random.normal(size=(8, 9))) for _ in range(60)]
    p = np.array([fit.p_values_[0] for fit in fits])
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.mean([fit.n_traits_ == 1 for fit in fits]) > 0.9


def test_alike_gains_reach_every_share_of_their_null() -> None:
    traits = TraitSpace(n_permutations=19).fit(np.full((4, 5), 0.25))
    assert traits.p_values_.tolist() == [1.0]


def test_raw_gains_keep_their_unit() -> None:
    np.testing.assert_array_equal(TraitSpace(n_permutations=1).fit(planted(1)).scale_, np.ones(12))


def test_standardised_gains_do_not_depend_on_the_size_of_a_task_s_gains() -> None:
    gains, factors = planted(2), np.geomspace(0.1, 10, 12)
    a, b = (TraitSpace(scaling="standardised", n_permutations=20).fit(g) for g in (gains, gains * factors))
    np.testing.assert_allclose(a.components_, b.components_, atol=1e-9)
    np.testing.assert_allclose(b.scale_, (gains * factors).std(axis=0))


def test_a_task_without_differences_is_not_scaled() -> None:
    gains = planted(1)
    gains[:, 3] = 0.25
    traits = TraitSpace(scaling="standardised", n_permutations=5).fit(gains)
    assert traits.scale_[3] == 1
    assert traits.components_[0, 3] == pytest.approx(0, abs=1e-12)


def test_an_unknown_scaling_is_refused() -> None:
    with pytest.raises(ValueError, match="not 'log'"):
        TraitSpace(scaling="log").fit(planted(1))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("scaling", ["raw", "standardised"])
def test_gains_are_rebuilt_from_their_scores(scaling: Scaling) -> None:
    gains = planted(2)
    traits = TraitSpace(scaling=scaling, n_permutations=5).fit(gains)
    np.testing.assert_allclose(traits.inverse_transform(traits.transform(gains)), gains, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["raw", "standardised"])
@pytest.mark.parametrize("seed", range(3))
def test_missing_cells_change_the_loadings_little(scaling: Scaling, seed: int) -> None:
    gains = planted(2, seed=seed)
    whole = TraitSpace(scaling=scaling, n_permutations=50).fit(gains)
    holed = TraitSpace(scaling=scaling, n_permutations=50).fit(without(gains, 0.15, seed=seed))
    assert (whole.n_traits_, holed.n_traits_, holed.imputation_rank_) == (2, 2, 2)
    assert likeness(whole.components_[:2], holed.components_[:2]) > 0.98


@pytest.mark.slow
def test_missing_cells_of_noise_make_no_trait() -> None:
    random = np.random.default_rng(2)
    holed = [without(random.normal(size=(10, 12)), 0.15, seed=i) for i in range(12)]
    fits = [TraitSpace(n_permutations=19).fit(gains) for gains in holed]
    assert np.mean([fit.n_traits_ == 1 for fit in fits]) >= 0.9
    assert 0.3 < np.mean([fit.p_values_[0] for fit in fits]) < 0.7


def test_the_null_shuffles_within_tasks_and_leaves_holes_where_they_are() -> None:
    gains = without(planted(1), 0.3)
    shuffled = _shuffled(gains, np.random.RandomState(0))
    np.testing.assert_array_equal(np.isnan(shuffled), np.isnan(gains))
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(gains, axis=0))
    assert not np.array_equal(shuffled, gains, equal_nan=True)


def test_an_adapter_is_placed_by_the_tasks_it_was_measured_on() -> None:
    gains = planted(2, noise=0.01)
    traits = TraitSpace(n_permutations=50).fit(gains)
    part = gains[:1].copy()
    part[0, [0, 5, 7, 10]] = np.nan
    placed = traits.transform(part)[0, :2]
    np.testing.assert_allclose(placed, traits.transform(gains[:1])[0, :2], atol=0.03)


def test_an_uninformative_cell_does_not_throw_an_adapter_far_out() -> None:
    gains = planted(1, noise=0.1)
    traits = TraitSpace(n_permutations=50).fit(gains)
    part = np.full((1, 12), np.nan)
    weakest = np.abs(traits.components_[0]).argmin()
    part[0, weakest] = traits.mean_[weakest] + 0.3
    assert abs(traits.transform(part)[0, 0]) < np.abs(traits.transform(gains)[:, 0]).max()


@pytest.mark.parametrize(("where", "named"), [((3,), "adapters in rows"), ((slice(None), 3), "tasks")])
def test_an_adapter_or_task_without_any_cell_is_named(where: Any, named: str) -> None:
    gains = planted(1)
    gains[where] = np.nan
    with pytest.raises(ValueError, match=rf"{named}.*\[3\]"):
        TraitSpace().fit(gains)


def test_a_new_adapter_without_any_cell_is_refused() -> None:
    traits = TraitSpace(n_permutations=5).fit(planted(1))
    with pytest.raises(ValueError, match=r"adapters in rows \[0\]"):
        traits.transform(np.full((1, 12), np.nan))
