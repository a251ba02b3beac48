"""Components that are there are found again in resampled data; those of noise are not."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ortho_group
from traitroute.profiling.traits.space import Scaling, TraitSpace
from traitroute.profiling.traits.stability import (
    adapter_stability,
    loading_stability,
    match_components,
)

Array = NDArray[np.float64]


def planted() -> Array:
    """Gains of 10 adapters on 12 tasks: a trait in the first eight tasks, one in the other four.

    Traits of equal strength would swap and mix at will, so one is the stronger under either scaling.
    """
    supply = np.array([[1] * 5 + [-1] * 5, [1, -1, 1, -1, 0] * 2])
    demand = np.array([[1, -1] * 4 + [0] * 4, [0] * 8 + [1] * 4]) * 0.2
    return supply.T @ demand


def measured(gains: Array, *, examples: int = 200, seed: int = 0) -> list[Array]:
    """Per-example outcomes -1, 0, 1 with these expected gains, an array (examples, adapters) a task."""
    random = np.random.default_rng(seed)
    outcomes = []
    for task in gains.T:
        changed = 0.15 + np.abs(task) / 2
        draw = random.random((examples, len(task)))
        outcomes.append((draw < changed + task / 2) * 1.0 - (draw > 1 - changed + task / 2))
    return outcomes


def to_gains(outcomes: list[Array]) -> Array:
    return np.stack([task.mean(axis=0) for task in outcomes], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["raw", "standardised"])
@pytest.mark.parametrize("seed", range(3))
def test_planted_traits_are_counted_and_found_again(scaling: Scaling, seed: int) -> None:
    outcomes = measured(planted(), seed=seed)
    traits = TraitSpace(scaling=scaling, n_permutations=200).fit(to_gains(outcomes))
    stability = loading_stability(outcomes, scaling=scaling)
    assert traits.n_traits_ == 2
    assert stability.median[:2].min() > 0.9
    assert stability.median[2:].max() < 0.9
    assert adapter_stability(to_gains(outcomes), scaling=scaling).median[:2].min() > 0.85


def test_components_of_noise_are_little_better_than_chance() -> None:
    outcomes = [measured(np.zeros((10, 12)), seed=seed) for seed in range(5)]
    traits = [TraitSpace(n_permutations=100).fit(to_gains(each)) for each in outcomes]
    stability = [loading_stability(each, n_bootstrap=100) for each in outcomes]
    assert [t.n_traits_ for t in traits].count(1) >= 4
    assert np.mean([s.median[0] for s in stability]) < 0.8
    assert np.mean([s.low[0] for s in stability]) < stability[0].chance


@pytest.mark.slow
def test_missing_cells_leave_planted_traits_stable() -> None:
    outcomes = measured(planted())
    for task, adapter in ((0, 1), (4, 3), (7, 8), (11, 0)):
        outcomes[task][:, adapter] = np.nan
    assert loading_stability(outcomes, n_bootstrap=50).median[:2].min() > 0.9
    assert adapter_stability(to_gains(outcomes), n_bootstrap=50).median[:2].min() > 0.85


def test_intervals_hold_the_loadings_that_were_planted() -> None:
    truth = np.linalg.svd(planted())[2][:2]
    stability = loading_stability(measured(planted(), examples=400))
    middle = (stability.loading_low[:2] + stability.loading_high[:2]) / 2
    signs = np.sign(np.sum(truth * middle, axis=1))[:, None]
    inside = (stability.loading_low[:2] <= truth * signs) & (truth * signs <= stability.loading_high[:2])
    assert inside.mean() > 0.8
    planted_tasks = np.abs(truth) > 0.1
    assert stability.sign_share[:2][planted_tasks].min() > 0.95
    assert stability.sign_share[:2][~planted_tasks].min() < 0.95


def test_examples_without_noise_give_the_same_loadings_every_time() -> None:
    outcomes = [np.tile(task, (20, 1)) for task in planted().T]
    stability = loading_stability(outcomes, n_bootstrap=20)
    np.testing.assert_allclose(stability.low, np.ones(2))
    np.testing.assert_allclose(stability.loading_low, stability.loading_high, atol=1e-9)


def test_few_adapters_do_not_hold_every_component_once_resampled() -> None:
    gains = np.random.default_rng(0).normal(size=(4, 9))
    assert adapter_stability(gains).low[-1] == 0


def test_chance_grows_with_fewer_tasks() -> None:
    few, many = (loading_stability(measured(np.zeros((6, n))), n_bootstrap=2).chance for n in (4, 30))
    assert few > many > 0.2


def test_components_are_matched_whatever_their_order_and_sign() -> None:
    frame = ortho_group.rvs(6, random_state=0)[:4]
    turned = -frame[[2, 0, 3, 1]]
    np.testing.assert_allclose(match_components(frame, turned), frame)


def test_a_component_without_a_match_gets_zeros() -> None:
    matched = match_components(np.eye(3, 5), np.eye(5)[[2]])
    np.testing.assert_array_equal(matched, [[0] * 5, [0] * 5, [0, 0, 1, 0, 0]])


def test_given_components_are_those_looked_for() -> None:
    outcomes, wanted = measured(planted()), -np.eye(2, 12)
    stability = loading_stability(outcomes, components=wanted, n_bootstrap=10)
    assert (stability.loading_high[0, 0]) < 0


def test_same_seed_gives_the_same_stability() -> None:
    outcomes = measured(planted())
    a, b = (loading_stability(outcomes, n_bootstrap=10, random_state=4) for _ in range(2))
    c, d = (adapter_stability(to_gains(outcomes), n_bootstrap=10, random_state=4) for _ in range(2))
    assert (a.model_dump_json(), c.model_dump_json()) == (b.model_dump_json(), d.model_dump_json())


def test_a_task_that_nobody_was_measured_on_is_refused() -> None:
    gains = planted()
    gains[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"tasks in columns \[2\]"):
        adapter_stability(gains)
