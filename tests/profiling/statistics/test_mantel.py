"""Matrices that agree are found to; matrices that do not are not, whatever their columns share."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from traitroute.adapters import InputError
from traitroute.profiling.statistics.mantel import mantel


def symmetric(n: int, random: np.random.Generator) -> np.ndarray:
    m = random.normal(size=(n, n))
    return m + m.T


def test_symmetric_matrices_are_correlated_over_their_pairs() -> None:
    random = np.random.default_rng(0)
    a, b = symmetric(8, random), symmetric(8, random)
    upper = np.triu_indices(8, k=1)
    found = mantel(a, b, n_permutations=50)
    assert found.r == pytest.approx(spearmanr(a[upper], b[upper]).statistic)
    assert found.cells == 28


def test_a_matrix_agrees_with_a_noisy_copy() -> None:
    random = np.random.default_rng(1)
    a = symmetric(10, random)
    found = mantel(a, a + 0.5 * symmetric(10, random), n_permutations=999)
    assert found.r > 0.7
    assert found.p == pytest.approx(1 / 1000)


@pytest.mark.parametrize("shape", [(8, 8), (8, 12)])
def test_unrelated_matrices_are_called_related_one_time_in_twenty(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    called = 0
    for seed in range(100):
        if shape[0] == shape[1]:
            a, b = symmetric(8, random), symmetric(8, random)
        else:
            a, b = random.normal(size=shape), random.normal(size=shape)
        called += mantel(a, b, n_permutations=99, seed=seed).p <= 0.05
    assert 1 <= called <= 12


def test_an_easy_target_in_both_matrices_is_no_agreement() -> None:
    random = np.random.default_rng(3)
    easy = np.arange(12) * 1.0
    gains, alike = (easy + random.normal(size=(7, 12)) for _ in range(2))
    found = mantel(gains, alike, n_permutations=999)
    assert found.r > 0.7
    assert found.null_low < found.r < found.null_high
    assert found.null_mean == pytest.approx(found.r, abs=0.1)
    assert found.p > 0.05


def test_gains_that_follow_similarity_are_found() -> None:
    random = np.random.default_rng(4)
    alike = random.normal(size=(8, 12))
    found = mantel(alike + random.normal(size=(8, 12)), alike, n_permutations=999)
    assert found.p < 0.01
    assert found.cells == 96


def test_cells_missing_in_either_matrix_are_left_out() -> None:
    random = np.random.default_rng(5)
    a, b = random.normal(size=(6, 9)), random.normal(size=(6, 9))
    a[0, 0] = b[1, 1] = np.nan
    kept = np.isfinite(a) & np.isfinite(b)
    found = mantel(a, b, n_permutations=50)
    assert found.r == pytest.approx(spearmanr(a[kept], b[kept]).statistic)
    assert found.cells == 52


def test_few_rows_are_permuted_in_every_way() -> None:
    random = np.random.default_rng(6)
    found = mantel(random.normal(size=(4, 9)), random.normal(size=(4, 9)), seed=1)
    assert found.permutations == 24
    assert found.p * 24 == pytest.approx(round(found.p * 24))
    assert found.p >= 1 / 24


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((3, 4)), np.ones((4, 3)), "equal shapes"),
        (np.ones((2, 4)), np.ones((2, 4)), "three rows"),
        (np.ones((3, 4)), np.arange(12.0).reshape(3, 4), "all of one matrix equal"),
    ],
)
def test_matrices_that_cannot_be_compared_are_refused(a: np.ndarray, b: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mantel(a, b)
