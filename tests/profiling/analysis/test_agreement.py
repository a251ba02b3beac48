"""Agreement of two matrices or two profiles: found where it was planted, and not where it was not."""

from typing import Any

import numpy as np
import pytest
from made_up_summary import made_up_summary, made_up_traits
from numpy.typing import NDArray
from scipy.stats import kstest, ortho_group, spearmanr
from traitroute.adapters import InputError
from traitroute.profiling.analysis.agreement import Agreement, ProfiledGains, agreement, common, mantel


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


@pytest.mark.slow
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


Array = NDArray[np.float64]
TASKS = 7


def side(gains: Array, *, n_traits: int = 2) -> ProfiledGains:
    adapters = tuple(f"a{i}" for i in range(len(gains)))
    return ProfiledGains(adapters, tuple(f"t{j}" for j in range(gains.shape[1])), gains, n_traits)


def random_gains(seed: int, *, adapters: int = 9, tasks: int = TASKS) -> Array:
    return np.random.default_rng(seed).normal(size=(adapters, tasks))


def compared(a: Array, b: Array, **options: Any) -> Agreement:
    return agreement(side(a), side(b), **({"n_permutations": 199} | options))


def test_rotated_scaled_and_shifted_traits_agree() -> None:
    scores = random_gains(0, tasks=2)
    turn = ortho_group.rvs(2, random_state=1)
    to_tasks = ortho_group.rvs(TASKS, random_state=2)[:2]
    others = ortho_group.rvs(TASKS, random_state=3)[:2]
    found = compared(scores @ to_tasks, 3 * scores @ turn @ others + 0.5)
    assert found.disparity.value < 1e-9
    assert found.disparity.p == pytest.approx(1 / 200)
    assert found.canonical_correlations == pytest.approx([1, 1])
    assert found.verdict == "agree"


def test_same_loadings_with_unrelated_adapters_show_in_the_loadings_alone() -> None:
    loadings = random_gains(1, adapters=2)
    found = compared(random_gains(2, tasks=2) @ loadings, random_gains(3, tasks=2) @ loadings)
    assert found.loading_angles == pytest.approx([0, 0], abs=1e-4)
    assert found.loadings.p <= 0.01
    assert found.disparity.p > 0.05


@pytest.mark.slow
def test_p_values_of_unrelated_gains_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    # No p-value rests on a bootstrap.
    monkeypatch.setattr("traitroute.profiling.analysis.agreement.N_RESAMPLES", 2)
    runs = [compared(random_gains(i), random_gains(1000 + i), n_permutations=99, seed=i) for i in range(60)]
    traits = ([r.disparity.p for r in runs], [r.canonical.p for r in runs], [r.loadings.p for r in runs])
    for p_values in (*traits, [r.columns.p for r in runs], [r.rows.p for r in runs]):
        assert kstest(p_values, "uniform").pvalue > 0.01


def test_targets_that_everyone_gains_on_are_no_agreement() -> None:
    easy = np.linspace(-3, 3, TASKS)
    found = compared(random_gains(4) + easy, random_gains(5) + easy)
    assert found.gains.r > 0.6
    assert found.gains.null_mean > 0.6
    assert found.gains.p > 0.05
    assert found.verdict == "not shown"


def test_where_they_agree_is_told_a_task_and_an_adapter() -> None:
    a, b = random_gains(6), random_gains(7)
    b[:, 3] = a[:, 3]
    b[:, 5] = 0.25
    found = compared(a, b)
    assert found.by_task[3] == pytest.approx(1)
    assert found.by_task[0] == pytest.approx(spearmanr(a[:, 0], b[:, 0]).statistic)
    assert np.isnan(found.by_task[5])
    centred = (a - a.mean(axis=0))[2], (b - b.mean(axis=0))[2]
    assert found.by_adapter[2] == pytest.approx(spearmanr(*centred).statistic)
    assert found.columns.value == pytest.approx(np.nan_to_num(found.by_task).mean())


def test_mean_rank_correlations_agree_where_gains_do_and_have_intervals() -> None:
    a = random_gains(10)
    found = compared(a, a + 0.5 * random_gains(11), n_permutations=999)
    for mean in (found.columns, found.rows):
        assert mean.p == pytest.approx(1 / 1000)
        assert abs(mean.null_median) < 0.2
        assert mean.low < mean.value < mean.high
    assert found.gains_interval[0] < found.gains.r < found.gains_interval[1]


def test_names_are_matched_whatever_their_order() -> None:
    a = side(random_gains(8))
    order = [4, 2, 0, 6, 8, 1]
    b = ProfiledGains(
        (*(a.adapters[i] for i in order), "new"),
        a.tasks[::-1],
        np.vstack([a.gains[order, ::-1], np.ones(TASKS)]),
        n_traits=1,
    )
    found = agreement(a, b, n_permutations=99)
    assert found.adapters == ("a0", "a1", "a2", "a4", "a6", "a8")
    assert found.by_task == pytest.approx(np.ones(TASKS))


def test_a_task_with_a_missing_cell_is_left_out() -> None:
    holed = random_gains(9)
    holed[2, 1] = np.nan
    adapters, tasks = common(side(random_gains(9)), side(holed))
    assert len(adapters) == 9
    assert tasks == ("t0", "t2", "t3", "t4", "t5", "t6")


@pytest.mark.parametrize(("adapters", "tasks"), [(3, 7), (9, 2)])
def test_too_little_overlap_says_how_much_there_is(adapters: int, tasks: int) -> None:
    small = side(random_gains(0, adapters=adapters, tasks=tasks))
    with pytest.raises(InputError, match=rf"^{adapters} adapters and {tasks} completely"):
        agreement(small, side(random_gains(1)))


def test_few_adapters_without_agreement_are_called_too_few() -> None:
    found = compared(random_gains(0, adapters=4), random_gains(1, adapters=4))
    assert found.verdict == "too few"
    assert "4 common adapters" in found.conclusion


def test_equal_rows_are_refused() -> None:
    with pytest.raises(InputError, match="same gains"):
        compared(np.ones((5, 4)), random_gains(1, adapters=5, tasks=4))


def test_components_are_at_most_the_lower_rank() -> None:
    flat = np.repeat(np.linspace(0, 1, 9)[:, None], TASKS, axis=1)
    assert compared(flat, random_gains(2)).n_traits == 1


def test_gains_are_those_of_the_summary() -> None:
    traits = made_up_traits(np.eye(3, 2))
    summary = made_up_summary(["x"], ["t", "u"], base=[0.5, 0.1], scores=[[0.7, None]], traits=traits)
    read = ProfiledGains.of(summary)
    assert read.gains[0, 0] == pytest.approx(0.2)
    assert np.isnan(read.gains[0, 1])
    assert read.n_traits == 3
