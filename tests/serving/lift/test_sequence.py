"""A confidence sequence misses the truth in one history of twenty at most, however often it is read."""

import numpy as np
import pytest
from traitroute.serving.lift.sequence import Values

HISTORIES = 400


def history(rng: np.random.Generator, n: int = 600, share: float = 0.05) -> tuple[Values, np.ndarray]:
    """Rewards of 0 and 1 weighted by inverse propensities, skewed and far out, with an expectation that drifts."""
    mean = np.linspace(0.9, 0.6, n)
    drawn, right = rng.random(n) < share, rng.random(n) < mean
    values = np.where(drawn, (right - 0.5) / share, 0.0)
    most = np.full(n, 0.5 / share)
    return Values(values, np.zeros(n), most, most, 1 / share), (mean - 0.5).cumsum() / np.arange(1, n + 1)


def test_the_truth_is_rarely_missed_at_any_of_600_looks() -> None:
    rng = np.random.default_rng(0)
    missed = usual = 0
    for _ in range(HISTORIES):
        values, truth = history(rng)
        looks = np.arange(20, 601)
        missed += values.sums(looks).misses(truth[looks - 1], 0.05).any()
        mean = (values.values.cumsum() / np.arange(1, 601))[looks - 1]
        spread = np.array([values.values[:look].std() for look in looks])
        usual += (np.abs(mean - truth[looks - 1]) > 1.96 * spread / np.sqrt(looks)).any()
    assert missed <= 0.05 * HISTORIES
    assert usual > 0.2 * HISTORIES


def test_it_is_an_interval_that_narrows_and_agrees_with_what_it_misses() -> None:
    values, _ = history(np.random.default_rng(1), n=30_000)
    looks = np.array([100, 1000, 30_000])
    sums = values.sums(looks)
    low, high = sums.low(0.025), sums.high(0.025)
    assert (np.diff(high - low) < 0).all()
    middle = values.sums().interval(0.05)
    assert (middle.low, middle.high) == pytest.approx((low[-1], high[-1]))
    for inside, edge in ((1e-9, low), (-1e-9, high)):
        assert not sums.misses(edge + inside, 0.05).any()
        assert sums.misses(edge - inside, 0.05).all()


def test_values_that_cannot_fall_far_below_are_bounded_more_tightly_from_below() -> None:
    values, _ = history(np.random.default_rng(2))
    mostly_right = Values(values.values, values.predictions, values.below / 10, values.above, values.reach)
    assert mostly_right.sums().low(0.025) > values.sums().low(0.025)
    assert mostly_right.sums().high(0.025) == values.sums().high(0.025)


def test_before_anything_is_known_everything_is_possible() -> None:
    one = Values(np.ones(1), np.zeros(1), np.full(1, 20.0), np.full(1, 20.0), 20.0)
    interval = one.sums().interval(0.05)
    assert (interval.low, interval.high) == (-1, 1)


def test_looks_in_the_middle_of_a_part_are_those_of_the_first_values() -> None:
    values, _ = history(np.random.default_rng(3), n=25_000)
    looks = np.array([1, 9_999, 10_000, 10_001, 20_000, 25_000])
    several = values.sums(looks)
    for i, look in enumerate(looks):
        alone = values[:look].sums()
        assert several.low_costs[i] == pytest.approx(alone.low_costs)
        assert several.total[i] == pytest.approx(alone.total)
