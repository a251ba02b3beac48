"""Missing cells: filled by what the measured ones share, and by no more."""

import numpy as np
import pytest
from numpy.typing import NDArray
from traitroute.profiling.traits.imputation import choose_rank, complete, noise_variance

Array = NDArray[np.float64]


def low_rank(rank: int, *, noise: float, seed: int, shape: tuple[int, int] = (12, 14)) -> Array:
    random = np.random.default_rng(seed)
    signal = random.normal(size=(shape[0], rank)) @ random.normal(size=(rank, shape[1]))
    return signal + random.normal(scale=noise, size=shape)


def holed(matrix: Array, share: float = 0.15) -> Array:
    return np.where(np.random.default_rng(7).random(matrix.shape) < share, np.nan, matrix)


@pytest.mark.parametrize("seed", range(3))
def test_a_low_rank_matrix_is_completed_nearly_exactly(seed: int) -> None:
    matrix = low_rank(2, noise=0.0, seed=seed)
    np.testing.assert_allclose(complete(holed(matrix), 2), matrix, atol=0.05)


def test_measured_cells_stay_as_they_are() -> None:
    matrix = holed(low_rank(2, noise=1.0, seed=0))
    known = ~np.isnan(matrix)
    np.testing.assert_array_equal(complete(matrix, 2)[known], matrix[known])


def test_rank_zero_is_the_mean_of_the_task() -> None:
    matrix = holed(low_rank(2, noise=1.0, seed=0))
    expected = np.where(np.isnan(matrix), np.nanmean(matrix, axis=0), matrix)
    np.testing.assert_array_equal(complete(matrix, 0), expected)


def test_shrunk_components_miss_hidden_cells_by_less_than_plain_ones() -> None:
    plain, shrunk = [], []
    for seed in range(8):
        matrix = low_rank(1, noise=1.0, seed=seed)
        hidden = np.isnan(holed(matrix))
        filled = complete(holed(matrix), 0)
        for _ in range(100):
            left, singular, right = np.linalg.svd(filled - filled.mean(axis=0), full_matrices=False)
            rebuilt = filled.mean(axis=0) + left[:, :2] * singular[:2] @ right[:2]
            filled = np.where(hidden, rebuilt, filled)
        plain.append(np.mean((filled - matrix)[hidden] ** 2))
        shrunk.append(np.mean((complete(holed(matrix), 2) - matrix)[hidden] ** 2))
    assert np.mean(shrunk) < 0.8 * np.mean(plain)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_planted_rank_is_chosen(rank: int) -> None:
    chosen = [choose_rank(holed(low_rank(rank, noise=0.1, seed=s, shape=(16, 16)))) for s in range(3)]
    assert np.median(chosen) == rank


@pytest.mark.slow
def test_no_component_is_chosen_for_noise() -> None:
    chosen = [choose_rank(holed(low_rank(0, noise=1.0, seed=s))) for s in range(10)]
    assert sum(rank == 0 for rank in chosen) >= 8


def test_the_last_cell_of_a_task_is_never_hidden() -> None:
    matrix = low_rank(1, noise=0.1, seed=0)
    matrix[1:, 4] = np.nan
    assert np.isfinite(complete(matrix, choose_rank(matrix))).all()


def test_noise_variance_is_found_beside_components() -> None:
    found = []
    for seed in range(10):
        matrix = low_rank(2, noise=0.5, seed=seed, shape=(40, 30))
        singular = np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False)
        found.append(noise_variance(singular, 2, matrix.shape))
    assert np.mean(found) == pytest.approx(0.25, rel=0.05)


def test_no_freedom_leaves_no_noise() -> None:
    assert noise_variance(np.array([2.0, 1.0]), 2, (3, 2)) == 0
