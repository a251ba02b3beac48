"""Planted causes of transfer are found, noise is not, and a left-out source leaks nothing."""

import numpy as np
import pytest
from forecast import hidden_against_semantic, paper_claim, verdict
from numpy.typing import NDArray
from traitroute.adapters import InputError
from traitroute.profiling.forecast.forecast import Forecasts, compare_methods
from traitroute.profiling.forecast.forecaster import (
    METHODS,
    PENALTIES,
    column_means,
    compare,
    coverage,
    fit_forecaster,
    leave_one_out,
)
from traitroute.profiling.forecast.signals import MEANING, NAMES, PairFeatures

pytestmark = pytest.mark.slow

Array = NDArray[np.float64]


def random_features(*, sources: int = 10, tasks: int = 15, seed: int = 0) -> PairFeatures:
    """Features without meaning; the sources are the first of the tasks."""
    names = tuple(f"t{i}" for i in range(tasks))
    values = np.random.default_rng(seed).normal(size=(sources, tasks, len(NAMES)))
    return PairFeatures(names[:sources], names, NAMES, values)


def gains_of(features: PairFeatures, cause: str | None, *, seed: int = 0) -> Array:
    """Gains with a mean for each task and some noise, and an effect of the feature `cause`."""
    random = np.random.default_rng([seed, 1])
    shape = features.values.shape[:2]
    effect = 0.0 if cause is None else -0.1 * features.part([cause])[:, :, 0]
    return random.normal(scale=0.05, size=shape[1]) + effect + random.normal(scale=0.03, size=shape)


@pytest.fixture(scope="module")
def planted() -> Forecasts:
    features = random_features()
    return compare_methods(gains_of(features, "length distance"), features)


@pytest.fixture(scope="module")
def noise() -> Forecasts:
    features = random_features()
    return compare_methods(gains_of(features, None), features)


def test_where_length_decides_hidden_statistics_win(planted: Forecasts) -> None:
    hidden, mean = (planted.transfer.method(name) for name in ("hidden statistics", "mean row"))
    assert hidden.rho > 0.8 > mean.rho + 0.2
    assert hidden.mae < 4 < mean.mae
    assert hidden.rho_gain.p < 0.01
    assert verdict(hidden_against_semantic(planted.transfer)[0]) == "shown"
    assert "this is shown: rank correlation" in paper_claim(planted.transfer)
    assert "hidden statistics beat the mean row" in paper_claim(planted.transfer)


def test_where_meaning_decides_the_opposite_is_shown() -> None:
    features = random_features()
    found = compare_methods(gains_of(features, MEANING), features)
    assert verdict(hidden_against_semantic(found.transfer)[0]) == "the opposite is shown"
    assert "do worse" not in paper_claim(found.transfer)


def test_on_noise_nothing_beats_the_mean_row(noise: Forecasts) -> None:
    gains = [m for c in (noise.overall, noise.transfer) for m in c.methods]
    assert all(m.mae_gain.mean > -0.2 for m in gains)
    assert all(m.rho_gain.p > 0.05 or m.rho_gain.mean < 0 for m in gains)
    assert verdict(hidden_against_semantic(noise.transfer)[0]) == "not shown"
    assert "are not shown to beat" in paper_claim(noise.transfer)


def test_on_noise_the_claim_is_rarely_shown() -> None:
    p_values = []
    for seed in range(8):
        features = random_features(sources=7, tasks=8, seed=seed)
        gains = gains_of(features, None, seed=seed)
        own = np.eye(7, 8, dtype=bool)
        found = compare("cross-task", gains, features, own, seed)
        p_values.append(hidden_against_semantic(found, seed)[0].p)
    assert np.sum(np.array(p_values) <= 0.05) <= 2


@pytest.mark.parametrize("method", METHODS)
def test_the_left_out_row_changes_nothing_of_its_own_forecast(method: str) -> None:
    features = random_features(sources=6)
    gains = gains_of(features, "length distance")
    before = leave_one_out(gains, features, method)
    gains[2] = np.random.default_rng(5).normal(size=gains.shape[1]) * 10
    after = leave_one_out(gains, features, method)
    for field in ("gains", "low", "high"):
        np.testing.assert_array_equal(getattr(before, field)[2], getattr(after, field)[2])
    assert not np.allclose(before.gains[3], after.gains[3])


def test_features_of_the_left_out_source_do_not_enter_the_others() -> None:
    features = random_features(sources=6)
    gains = gains_of(features, "length distance")
    rest = np.arange(6) != 2
    direct = fit_forecaster(gains[rest], features.values[rest], with_mean=True)
    expected = direct.predict(features.values[2]).gains
    np.testing.assert_array_equal(leave_one_out(gains, features, "all").gains[2], expected)


def test_the_mean_row_is_the_mean_of_the_others() -> None:
    features = random_features()
    gains = gains_of(features, None)
    rows = leave_one_out(gains, features, "mean row").gains
    np.testing.assert_allclose(rows[3], np.delete(gains, 3, axis=0).mean(axis=0))


def test_deviations_are_those_of_ridge_by_hand() -> None:
    features = random_features(sources=5, tasks=7)
    gains = gains_of(features, "length distance")
    x = features.part(["length distance"])
    fitted = fit_forecaster(gains, x)
    others = (gains.sum(axis=0) - gains) / 4
    flat, wanted = x.ravel(), (gains - others).ravel()
    z = (flat - flat.mean()) / flat.std()
    slope = z @ wanted / (z @ z + fitted.penalty)
    expected = gains.mean(axis=0) + slope * (x[1, :, 0] - flat.mean()) / flat.std()
    np.testing.assert_allclose(fitted.predict(x[1]).gains, expected)


def test_what_explains_nothing_is_shrunk_towards_the_mean_row() -> None:
    features = random_features(sources=8)
    noise, signal = (
        fit_forecaster(gains_of(features, cause), features.part(["style cosine"])) for cause in (None, "style cosine")
    )
    assert noise.penalty > 10 * signal.penalty
    assert signal.penalty < PENALTIES[4]


def test_intervals_hold_about_as_many_gains_as_they_should() -> None:
    covered = []
    for seed in range(5):
        features = random_features(seed=seed)
        gains = gains_of(features, "length distance", seed=seed)
        covered.append(coverage(gains, leave_one_out(gains, features, "hidden statistics")))
    assert 0.85 < np.mean(covered) < 0.96


def test_intervals_widen_with_the_noise() -> None:
    features = random_features().values
    gains = np.random.default_rng(0).normal(size=features.shape[:2])
    quiet, loud = (fit_forecaster(scale * gains, features[:, :, :0]).width for scale in (0.1, 0.3))
    assert loud == pytest.approx(3 * quiet)


def test_own_tasks_are_left_out_of_cross_task_figures() -> None:
    features = random_features(sources=5, tasks=6)
    gains = gains_of(features, None)
    changed = gains + 5 * np.eye(5, 6)
    before, after = (compare_methods(g, features) for g in (gains, changed))
    assert np.array_equal(after.own, np.eye(5, 6, dtype=bool))
    for one, other in zip(before.transfer.methods, after.transfer.methods, strict=True):
        np.testing.assert_array_equal(one.maes, other.maes)
    assert after.overall.method("all").mae > before.overall.method("all").mae


def test_missing_cells_are_left_out_and_a_task_that_nobody_has_stays_unknown() -> None:
    features = random_features(sources=6)
    gains = gains_of(features, "length distance")
    gains[0, 3] = gains[4, 5] = np.nan
    gains[:, 9] = np.nan
    found = compare_methods(gains, features)
    assert np.isnan(found.predicted[:, 9]).all()
    assert np.isfinite(np.delete(found.predicted, 9, axis=1)).all()
    assert np.isfinite([m.mae for m in found.methods]).all()
    np.testing.assert_array_equal(column_means(np.array([[1, np.nan], [3, np.nan]])), [2, np.nan])


def test_a_source_that_gains_the_same_everywhere_has_no_rank_correlation() -> None:
    features = random_features(sources=6)
    gains = gains_of(features, "length distance")
    gains[1] = 0
    score = compare_methods(gains, features).overall.method("all")
    assert np.isnan(score.rhos[1])
    assert score.rho == pytest.approx(np.nanmean(score.rhos))


def test_four_sources_are_enough_to_forecast_but_not_to_show_anything() -> None:
    features = random_features(sources=4)
    found = compare_methods(gains_of(features, "length distance"), features)
    assert verdict(hidden_against_semantic(found.transfer)[0]) == "not shown"
    assert "4 sources are too few" in paper_claim(found.transfer)


def test_too_few_sources_and_unknown_methods_are_refused() -> None:
    features = random_features(sources=3)
    with pytest.raises(InputError, match=r"3 measured sources \(t0, t1, t2\); wanted at least 4"):
        compare_methods(np.zeros((3, 15)), features)
    features = random_features(sources=4)
    with pytest.raises(InputError, match=r"no forecasting method 'guess'; methods: mean row"):
        compare_methods(np.zeros((4, 15)), features, method="guess")
