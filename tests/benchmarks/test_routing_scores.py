"""The benchmark's arithmetic: references that selection does not inflate, and intervals that hold."""

import numpy as np
import pytest
from routing.scores import (
    Reference,
    ahead_p,
    cross_fitted_best,
    data_set_scores,
    holm,
    leads,
    reference,
    reliability,
    sign_flip_p,
    summary,
)

DATASETS = np.repeat(np.array([f"set {i}" for i in range(12)]), 40)
GROUPS = np.repeat(np.array([f"group {i // 2}" for i in range(12)]), 40)
ROWS = np.arange(len(DATASETS))


def against(scores: np.ndarray) -> Reference:
    return reference(scores, DATASETS, GROUPS, ROWS.astype(np.uint64), ROWS)


def coin_flips(columns: int = 11) -> np.ndarray:
    return (np.random.default_rng(0).random((len(DATASETS), columns)) < 0.5).astype(float)


def test_the_best_of_equal_columns_is_inflated_naively_and_not_when_cross_fitted() -> None:
    found = against(coin_flips())
    assert found.best.mean() == pytest.approx(0.5, abs=0.04)
    assert found.naive.mean() > found.best.mean() + 0.05


def test_a_column_that_is_always_right_is_the_whole_reference() -> None:
    scores = coin_flips()
    scores[:, 3] = 1.0
    assert cross_fitted_best(scores) == pytest.approx(1.0)


def test_a_request_asked_twice_counts_once_in_the_reference() -> None:
    scores, twice = coin_flips(), np.concatenate([ROWS, ROWS, ROWS])
    found = reference(scores[twice], DATASETS[twice], GROUPS[twice], twice.astype(np.uint64), twice)
    np.testing.assert_allclose(found.best, against(scores).best)


def test_choosing_the_best_column_everywhere_is_a_hundred_percent() -> None:
    scores = np.zeros((len(DATASETS), 3))
    scores[:, 2] = 1.0
    figures = summary(data_set_scores(scores, np.full(len(ROWS), 2), against(scores)))
    assert figures["pct_of_best"] == figures["gain_recovered"] == pytest.approx(100.0)
    assert figures["pct_of_best_ci"] == pytest.approx([100.0, 100.0])
    assert figures["groups_below_base"] == 0


def test_data_sets_count_alike_and_intervals_draw_groups() -> None:
    # All data sets of a group do alike, so as many groups with one data set each give the same interval.
    scores = np.zeros((len(DATASETS), 2))
    scores[:, 1] = 1.0
    choice = np.isin(GROUPS, ["group 0", "group 1", "group 2"]).astype(np.intp)
    two = summary(data_set_scores(scores, choice, against(scores)))
    half = np.isin(DATASETS, [f"set {i}" for i in range(0, 12, 2)])
    one = reference(scores[half], DATASETS[half], GROUPS[half], ROWS[half].astype(np.uint64), ROWS[half])
    assert two["pct_of_best"] == pytest.approx(50.0)
    assert two["pct_of_best_ci"] == summary(data_set_scores(scores[half], choice[half], one))["pct_of_best_ci"]


def test_harm_is_counted_group_by_group() -> None:
    scores = np.zeros((len(DATASETS), 2))
    scores[:, 0] = 1.0
    choice = (GROUPS == "group 3").astype(np.intp)
    figures = summary(data_set_scores(scores, choice, against(scores)))
    assert figures["below_base"] == ["group 3"]
    assert figures["groups_below_base"] == 1
    assert figures["groups"] == 6


def test_chance_is_no_harm() -> None:
    scores = coin_flips(2)
    figures = summary(data_set_scores(scores, np.ones(len(ROWS), np.intp), against(scores)))
    assert figures["groups_below_base"] == 0


def test_holm_rejects_in_order_and_stops() -> None:
    p = np.array([0.03, 0.001, 0.9, 0.012])
    assert holm(p).tolist() == [False, True, False, True]
    assert not holm(np.full(4, 0.02)).any()


def test_sign_flips_of_few_are_exact_and_of_many_near() -> None:
    assert sign_flip_p(np.ones(5)) == pytest.approx(1 / 32)
    assert sign_flip_p(np.concatenate([np.ones(5), np.zeros(30)])) == pytest.approx(1 / 32)
    assert sign_flip_p(np.concatenate([np.ones(15), -np.ones(5)])) == pytest.approx(0.0207, abs=0.005)
    assert sign_flip_p(np.zeros(5)) >= 0.5
    assert sign_flip_p(-np.ones(20)) > 0.99


def test_leads_add_up_and_a_steady_one_is_sure() -> None:
    scores = np.zeros((len(DATASETS), 2))
    scores[:, 1] = 1.0
    whole = against(scores)
    ours, theirs = (data_set_scores(scores, np.full(len(ROWS), c), whole) for c in (1, 0))
    lead = leads(ours, theirs)
    assert sum(lead.values()) == pytest.approx(100.0)
    # Six groups: 1 of 64 ways to set signs is as good. A second protocol on the same groups is no new evidence.
    assert ahead_p([lead]) == ahead_p([lead, lead]) == pytest.approx(1 / 64)
    assert ahead_p([leads(theirs, ours)]) > 0.9


def test_reliability_of_a_true_forecast_is_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    forecast = rng.random(20_000)
    realised = (rng.random(20_000) < forecast).astype(float)
    for part in reliability(forecast, realised):
        assert part["realised"] == pytest.approx(part["predicted"], abs=0.05)
