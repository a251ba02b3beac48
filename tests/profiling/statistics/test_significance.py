"""Intervals, paired tests and false-discovery control, against scipy and on planted effects."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from traitroute.adapters import InputError, Outcomes, PairedOutcomes
from traitroute.profiling.statistics.significance import (
    bootstrap_means,
    compare_with_base,
    discoveries,
    paired,
    paired_bootstrap,
    sign_flip_p,
    sign_p,
    wilson,
)
from traitroute.serving.measured import paired_interval

from ...made_up_outcomes import made_up_outcomes


def mcnemar(adapter: np.ndarray, base: np.ndarray) -> float:
    return float(sign_p(paired(adapter, base)[:, None])[0])


def outcomes(strict: np.ndarray, log_likelihood: np.ndarray | None = None) -> Outcomes:
    scored = 0 if log_likelihood is None else log_likelihood
    return made_up_outcomes(strict, lenient=True, log_likelihood=scored, target_tokens=2)


def family(rng: np.random.Generator, shift: np.ndarray, n: int = 200) -> dict[tuple[str | None, str], Outcomes]:
    """Right-or-wrong outcomes; adapter a changes 40% of base's answers on task t, for better by `shift`."""
    cells: dict[tuple[str | None, str], Outcomes] = {}
    for column in range(shift.shape[1]):
        base = rng.random(n) < 0.5
        cells[None, f"t{column}"] = outcomes(base)
        for row in range(len(shift)):
            fresh = rng.random(n) < 0.5 + shift[row, column]
            cells[f"a{row}", f"t{column}"] = outcomes(np.where(rng.random(n) < 0.4, fresh, base))
    return cells


def names(letter: str, count: int) -> list[str]:
    return [f"{letter}{i}" for i in range(count)]


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts, level=0.9)
    known = stats.binomtest(*counts).proportion_ci(confidence_level=0.9, method="wilson")
    np.testing.assert_allclose([low, high], [known.low, known.high], atol=1e-12)


def test_wilson_works_on_arrays_and_knows_nothing_of_no_examples() -> None:
    low, high = wilson([[0, 5], [0, 10]], [[0, 10], [10, 10]])
    assert low.shape == high.shape == (2, 2)
    assert (low[0, 0], high[0, 0], low[1, 0], high[1, 1]) == (0, 1, 0, 1)
    with pytest.raises(InputError, match="between 0 and n"):
        wilson([3], [2])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_binomial_on_discordant_pairs(pairs: list[tuple[bool, bool]]) -> None:
    adapter, base = np.array(pairs).T
    better, worse = int(np.sum(adapter & ~base)), int(np.sum(~adapter & base))
    known = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(adapter, base) == pytest.approx(known)


def test_bootstrap_interval_agrees_with_scipy() -> None:
    sample = np.random.default_rng(1).gamma(2, size=80)
    known = stats.bootstrap((sample,), np.mean, method="percentile", rng=2).confidence_interval
    found = paired_bootstrap(sample, n_resamples=10_000, seed=3)
    np.testing.assert_allclose([found.low, found.high], known, atol=0.02)
    assert found.mean == pytest.approx(sample.mean())


def test_sign_flip_p_agrees_with_scipy_and_with_mcnemar() -> None:
    rng = np.random.default_rng(4)
    graded = rng.normal(0.25, 1, size=12)
    known = stats.permutation_test((graded,), np.mean, permutation_type="samples")
    assert paired_bootstrap(graded, n_resamples=40_000).p == pytest.approx(known.pvalue, abs=0.01)
    adapter, base = rng.random(50) < 0.6, rng.random(50) < 0.4
    differences = adapter.astype(float) - base
    assert paired_bootstrap(differences).p == pytest.approx(mcnemar(adapter, base))


@settings(derandomize=True, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.integers(12, 60), st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0, 0.5))
def test_p_values_of_graded_scores_are_uniform_where_nothing_differs(
    seed: int, n: int, a: float, b: float, alike: float
) -> None:
    rng = np.random.default_rng(seed)
    # Examples are of unlike difficulty, and on some both give the same answer.
    easy = rng.beta(a, b, (n, 1))
    ours, base = (np.clip(easy + rng.normal(0, 0.2, (n, 2000)), 0, 1).astype(np.float32) for _ in range(2))
    differences = paired(*(np.where(rng.random(ours.shape) < alike, easy, x).ravel() for x in (ours, base)))
    p = sign_flip_p(differences.reshape(ours.shape), 1000, rng)
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 2000))


def test_graded_scores_are_compared_by_the_score_of_their_task() -> None:
    rng = np.random.default_rng(12)
    base, better = rng.random(60), rng.random(60)
    cells = {
        (None, "t"): replace(outcomes(np.zeros(60)), score=base.astype(np.float32)),
        ("a", "t"): replace(outcomes(np.zeros(60)), score=(0.7 * base + 0.3 * np.maximum(base, better)).astype("f4")),
    }
    tests = compare_with_base(cells, ["a"], ["t"], score={"t": "metric"})
    assert tests.verdict[0, 0] == "gain"
    assert 0 < tests.low[0, 0] < tests.gain[0, 0] < tests.high[0, 0] < 0.1
    assert compare_with_base(cells, ["a"], ["t"]).p.tolist() == [[1]]


def test_sign_flip_p_counts_ties_with_the_observed_mean() -> None:
    values = np.array([[0.1], [0.2], [0.0]])
    p = sign_flip_p(values, 4000, np.random.default_rng(0))
    assert p == pytest.approx([0.5], abs=0.03)


def test_resampling_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=(30, 2))
    whole = bootstrap_means(values, 50, np.random.default_rng(6))
    monkeypatch.setattr("traitroute.profiling.statistics.significance._CHUNK", 70)
    np.testing.assert_allclose(bootstrap_means(values, 50, np.random.default_rng(6)), whole)


@pytest.mark.parametrize("wrong", [[], [1.0, np.nan], [[1.0]]])
def test_differences_that_cannot_be_tested_are_refused(wrong: list[float]) -> None:
    with pytest.raises(InputError, match="one finite number an example"):
        paired_bootstrap(wrong)


def test_missing_cells_leave_the_family() -> None:
    p = np.array([[0.01, np.nan], [0.02, 0.9]])
    q_values, called = discoveries(p)
    np.testing.assert_allclose(q_values, [[0.03, np.nan], [0.03, 0.9]])
    np.testing.assert_array_equal(called, [[True, False], [True, False]])
    assert np.isnan(discoveries(np.full((2, 2), np.nan))[0]).all()


def test_without_effects_discoveries_are_rare() -> None:
    rng = np.random.default_rng(7)
    called = 0
    for _ in range(60):
        tests = compare_with_base(family(rng, np.zeros((6, 6))), names("a", 6), names("t", 6), n_resamples=20)
        called += tests.counts["gain"] + tests.counts["side effect"] > 0
    # 5% expected; under that, more than 8 of 60 comes in 3 runs of 1000.
    assert called <= 8


def test_planted_effects_are_found_and_few_others_are() -> None:
    rng = np.random.default_rng(8)
    shift = np.where(rng.random((8, 8)) < 0.4, rng.choice([-0.45, 0.45], size=(8, 8)), 0)
    tests = compare_with_base(family(rng, shift), names("a", 8), names("t", 8), n_resamples=200)
    assert np.mean(tests.verdict[shift > 0] == "gain") > 0.9
    assert np.mean(tests.verdict[shift < 0] == "side effect") > 0.9
    called = np.isin(tests.verdict, ["gain", "side effect"])
    assert np.sum(called & (shift == 0)) / called.sum() <= 0.1
    assert sum(tests.counts.values()) == 64


def test_intervals_cover_the_true_gain_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(9)
    shift = np.full((30, 10), 0.2)
    tests = compare_with_base(family(rng, shift), names("a", 30), names("t", 10))
    true = 0.4 * 0.2
    assert np.mean((tests.low <= true) & (true <= tests.high)) == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_a_cell_where_all_examples_agree_has_an_interval_as_wide_as_on_skill_cards(right: float) -> None:
    same = outcomes(np.full(24, right))
    tests = compare_with_base({(None, "t"): same, ("a", "t"): same}, ["a"], ["t"])
    low, high = paired_interval(np.zeros((1, 1)), PairedOutcomes.of([np.zeros((24, 1))]))
    assert (tests.gain[0, 0], tests.low[0, 0], tests.high[0, 0]) == (0, low, high)
    assert high == pytest.approx(0.1066, abs=1e-4)


def test_likelihood_is_compared_by_token_and_one_strong_effect_can_pass() -> None:
    rng = np.random.default_rng(10)
    right = np.ones(100)
    base = rng.normal(-5, 1, 100).astype(np.float32)
    cells: dict[tuple[str | None, str], Outcomes] = {(None, "t0"): outcomes(right, base)}
    for row in range(150):
        noise = rng.normal(1.0 if row == 0 else 0.0, 0.5, 100).astype(np.float32)
        cells[f"a{row}", "t0"] = outcomes(right, base + noise)
    tests = compare_with_base(cells, names("a", 150), ["t0"], score="likelihood", n_resamples=100)
    assert tests.verdict[0, 0] == "gain"
    assert tests.gain[0, 0] == pytest.approx(0.5, abs=0.1)
    assert compare_with_base(cells, names("a", 2), ["t0"], score="lenient").p.tolist() == [[1], [1]]


def test_missing_cells_are_named_and_change_no_other() -> None:
    cells = family(np.random.default_rng(11), np.full((3, 2), 0.3))
    whole = compare_with_base(cells, names("a", 3), names("t", 2))
    part = {key: value for key, value in cells.items() if key != ("a1", "t0")}
    tests = compare_with_base(part, names("a", 3), [*names("t", 2), "unknown"])
    assert tests.verdict[1, 0] == tests.verdict[0, 2] == "not measured"
    assert np.isnan(tests.gain[1, 0])
    np.testing.assert_array_equal(tests.low[[0, 2], 0], whole.low[[0, 2], 0])
    assert tests.examples.tolist() == [200, 200, 0]


def test_unequal_examples_are_refused_by_name() -> None:
    cells = {(None, "sums"): outcomes(np.ones(4)), ("a", "sums"): outcomes(np.ones(3))}
    with pytest.raises(InputError, match="a and the base model on task sums"):
        compare_with_base(cells, ["a"], ["sums"])
