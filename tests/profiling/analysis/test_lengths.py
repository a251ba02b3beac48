"""Length summaries, densities and the test of interpolated length habits, on planted lengths."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar
from traitroute.adapters import InputError
from traitroute.profiling.analysis.lengths import density, habit, length_grid, summarise, wasserstein

DATA = Path(__file__).parents[4] / "shared" / "data"


def lengths(rng: np.random.Generator, mean: float, n: int = 300) -> np.ndarray:
    """Whole, skewed lengths, as those of real answers."""
    return np.rint(mean * rng.gamma(4, 0.25, n)).astype(int)


def between(rng: np.random.Generator, weight: float, n: int = 300) -> np.ndarray:
    """Lengths of an adapter that interpolates between base (120) and source (30)."""
    return np.rint((120 + weight * (30 - 120)) * rng.gamma(4, 0.25, n)).astype(int)


def test_summary_clips_at_the_limit_and_counts_what_is_cut() -> None:
    found = summarise([1, 2, 3, 100, 4], limit=4)
    assert (found.count, found.mean, found.maximum, found.cut) == (5, 2.8, 4, 0.4)
    assert found.quantiles[2] == 3
    assert summarise([7]).sd == 0


@pytest.mark.parametrize("wrong", [[], [1, -1], [np.nan], [[1, 2]]])
def test_lengths_that_cannot_be_are_refused(wrong: list[float]) -> None:
    with pytest.raises(InputError, match="number of tokens"):
        summarise(wrong)


def test_density_is_that_of_scipy_on_the_log_scale() -> None:
    sample = lengths(np.random.default_rng(0), 80)
    grid = length_grid(sample)
    known = stats.gaussian_kde(np.log1p(sample))(np.log1p(grid))
    np.testing.assert_allclose(density(sample, grid), known)


@pytest.mark.parametrize("sample", [[7], [7, 7, 7], [0, 0], [*[7] * 999, 8], [0.1] * 3])
def test_density_of_one_repeated_length_is_a_spike(sample: list[float]) -> None:
    grid = length_grid(sample, [50])
    found = density(sample, grid)
    assert abs(np.log1p(grid[found.argmax()]) - np.log1p(sample[0])) < 0.03
    inside = 0.5 if sample[0] == 0 else 1
    assert np.trapezoid(found, np.log1p(grid)) == pytest.approx(inside, abs=0.2)


def test_wasserstein_is_in_tokens_and_clips_both() -> None:
    assert wasserstein([1, 2, 3], [4, 5, 6]) == pytest.approx(3)
    assert wasserstein([1, 2, 3], [4, 5, 600], limit=6) == pytest.approx(3)


def test_weight_is_the_one_that_an_optimiser_finds() -> None:
    rng = np.random.default_rng(1)
    base, source, adapter = lengths(rng, 120, 250), lengths(rng, 30, 500), lengths(rng, 70, 200)
    found = habit(base, source, adapter, n_resamples=10)
    at = (np.arange(1000) + 0.5) / 1000
    low, high = (np.quantile(x, at, method="inverted_cdf") for x in (base, source))
    known = minimize_scalar(lambda w: wasserstein((1 - w) * low + w * high, adapter), bounds=(0, 1), method="bounded")
    assert found.weight == pytest.approx(known.x, abs=1e-3)
    assert found.to_best == pytest.approx(known.fun, abs=1e-3)
    assert found.to_base == pytest.approx(wasserstein(base, adapter))
    assert found.base_to_source == pytest.approx(wasserstein(base, source))


@pytest.mark.parametrize(("weight", "word"), [(0.0, "base"), (0.5, "between"), (1.0, "source")])
def test_planted_habits_are_named(weight: float, word: str) -> None:
    rng = np.random.default_rng(2)
    found = habit(lengths(rng, 120), lengths(rng, 30), between(rng, weight))
    assert found.verdict == word
    assert found.low <= found.weight <= found.high
    assert found.weight == pytest.approx(weight, abs=0.1)
    assert found.unexplained < 0.1


def test_lengths_off_the_line_are_neither() -> None:
    rng = np.random.default_rng(3)
    base, source = lengths(rng, 120), lengths(rng, 30)
    beyond = habit(base, source, lengths(rng, 10))
    split = habit(base, source, np.concatenate([lengths(rng, 120, 150), lengths(rng, 3, 150)]))
    assert (beyond.verdict, beyond.weight, split.verdict) == ("neither", 1, "neither")
    assert split.p < 0.01


@pytest.mark.slow
def test_adapters_that_interpolate_are_seldom_refused_and_bounds_hold_the_weight() -> None:
    rng = np.random.default_rng(4)
    found = [
        habit(lengths(rng, 120, 100), lengths(rng, 30, 200), between(rng, 0.6, 100), n_resamples=100, seed=i)
        for i in range(100)
    ]
    assert np.mean([h.p < 0.05 for h in found]) <= 0.11
    assert np.mean([h.p < 0.5 for h in found]) == pytest.approx(0.5, abs=0.2)
    assert np.mean([h.low <= 0.6 <= h.high for h in found]) >= 0.88


def test_short_whole_lengths_do_not_refute_by_rounding() -> None:
    rng = np.random.default_rng(5)
    base, source = rng.integers(1, 4, 400), rng.integers(3, 9, 400)
    middle = np.sort(base) + 0.5 * (np.sort(source) - np.sort(base))
    assert habit(base, source, np.rint(rng.choice(middle, 400))).verdict == "between"


def test_base_and_source_alike_decide_nothing() -> None:
    same = [5] * 40
    found = habit(same, same, same)
    assert (found.verdict, np.isnan(found.weight), found.p) == ("undecided", True, 1)
    assert np.isnan(found.unexplained)
    assert habit(same, same, [9] * 40).verdict == "neither"
    rng = np.random.default_rng(6)
    assert habit(*(lengths(rng, 50, 60) for _ in range(3))).verdict == "undecided"


def test_limit_clips_all_three_and_the_cut_shares_say_so() -> None:
    rng = np.random.default_rng(7)
    found = habit(lengths(rng, 500), lengths(rng, 30), np.full(300, 64), limit=64)
    assert found.cut_base > 0.95
    assert (found.cut_adapter, found.verdict) == (1, "base")


def test_real_sources_differ_in_length() -> None:
    if not DATA.is_dir():
        pytest.skip(f"no task data at {DATA}")
    words = {
        name: [
            len(json.loads(line)["target"].split())
            for line in (DATA / name / "train.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for name in ("gsm8k", "goat_arithmetic", "amazon_polarity")
    }
    gsm8k, goat, labels = words.values()
    assert wasserstein(gsm8k, goat) > 10
    assert habit(gsm8k, labels, labels[:500]).verdict == "source"
