"""The benchmark's arithmetic: references that selection does not inflate, and intervals that hold."""

import numpy as np
import pytest
from routing.scores import (
    cross_fitted_best,
    paired_p,
    reference,
    reliability,
    summary,
    surely_below,
    task_scores,
)

TASKS = np.repeat(np.array(["a", "b", "c"]), 60)


def coin_flips(columns: int = 11) -> np.ndarray:
    return (np.random.default_rng(0).random((len(TASKS), columns)) < 0.5).astype(float)


def test_the_best_of_equal_columns_is_inflated_naively_and_not_when_cross_fitted() -> None:
    found = reference(coin_flips(), TASKS)
    assert found.best.mean() == pytest.approx(0.5, abs=0.05)
    assert found.naive.mean() > found.best.mean() + 0.05


def test_a_column_that_is_always_right_is_the_whole_reference() -> None:
    scores = coin_flips()
    scores[:, 3] = 1.0
    assert cross_fitted_best(scores) == pytest.approx(1.0)


def test_choosing_the_best_column_everywhere_is_a_hundred_percent() -> None:
    scores = np.zeros((len(TASKS), 3))
    scores[:, 2] = 1.0
    chosen = np.full(len(TASKS), 2)
    figures = summary(task_scores(scores, chosen, reference(scores, TASKS)))
    assert figures["pct_of_best"] == figures["gain_recovered"] == pytest.approx(100.0)
    assert figures["tasks_below_base"] == 0


def test_a_harmful_choice_is_counted_task_by_task() -> None:
    scores = np.zeros((len(TASKS), 2))
    scores[:, 0] = 1.0
    chosen = (TASKS == "b").astype(np.intp)
    figures = summary(task_scores(scores, chosen, reference(scores, TASKS)))
    assert figures["tasks_below_base"] == 1
    assert figures["pct_of_best"] == pytest.approx(200 / 3)


def test_noise_around_zero_is_not_surely_below() -> None:
    noise = np.random.default_rng(0).choice([-1.0, 1.0], 100)
    assert not surely_below(noise - noise.mean())
    assert surely_below(noise - noise.mean() - 0.5)


def test_p_value_is_small_for_a_steady_lead_only() -> None:
    lead = np.random.default_rng(0).random(24)
    assert paired_p(lead + 0.1, lead) < 0.001
    assert paired_p(lead, lead) > 0.5


def test_reliability_of_a_true_forecast_is_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    forecast = rng.random(20_000)
    realised = (rng.random(20_000) < forecast).astype(float)
    for part in reliability(forecast, realised):
        assert part["realised"] == pytest.approx(part["predicted"], abs=0.05)
