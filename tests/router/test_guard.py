"""When the base model answers: novelty of requests, and z from tasks left out."""

from typing import Any

import numpy as np
import pytest
from traitroute.router.guard import LEAST_SPREAD, LEAST_Z, Novelty, RiskCurve


def curve(gains: Any, harmed: list[int], tasks: int = 40) -> RiskCurve:
    """A curve of the same gain for every task, where at each z the first tasks are harmed."""
    z = np.arange(len(harmed)) / 2
    harms = np.arange(tasks) < np.array(harmed)[:, None]
    return RiskCurve(z, np.repeat(np.array(gains)[:, None], tasks, axis=1), harms)


def test_risk_is_kept_with_one_more_task_counted_as_harmed() -> None:
    falling = (0.4, 0.3, 0.2, 0.1)
    assert curve(falling, [5, 2, 1, 0], tasks=60).best_z(0.05) == 0.5
    assert curve(falling, [5, 2, 1, 0], tasks=40).best_z(0.05) == 1.0
    assert curve(falling, [5, 2, 1, 0], tasks=20).best_z(0.05) == 1.5


def test_z_above_which_harm_returns_is_not_taken() -> None:
    assert curve((0.4, 0.3, 0.2), [0, 9, 0]).best_z(0.05) == 1.0


def test_harm_at_every_z_gives_the_highest() -> None:
    assert curve((0.4, 0.3), [9, 9]).best_z(0.05) == 0.5


def test_a_margin_that_costs_nothing_is_taken() -> None:
    assert curve((0.4, 0.4, 0.3), [0, 0, 0]).best_z(0.05) == 0.5


def test_the_best_of_the_safe_z_is_taken_though_a_higher_one_is_safe_too() -> None:
    assert curve((0.1, 0.2, 0.4, 0.3), [9, 0, 0, 0]).best_z(0.05) == 1.0


def test_a_loss_that_one_of_many_groups_has_by_chance_is_no_harm() -> None:
    # A tenth of the answers lost, none won: 2.1 standard errors, which is nothing among 24 groups, and something of one
    # alone.
    gains = np.where(np.arange(40) < 4, -1.0, 0.0)[:, None]
    alone = RiskCurve.of(np.ones((40, 1)), np.full(40, 0.1), gains, np.zeros(40, np.intp))
    assert alone.harmed[0].tolist() == [True]
    among = np.vstack([gains, np.tile([[1.0], [0.0]], (23 * 20, 1))])
    groups = np.repeat(np.arange(24), 40)
    many = RiskCurve.of(np.ones((960, 1)), np.full(960, 0.1), among, groups)
    assert not many.harmed[0].any()


@pytest.mark.parametrize("tasks", [1, 2, 3, 18])
def test_few_tasks_without_harm_do_not_show_that_there_is_none(tasks: int) -> None:
    assert curve((0.4, 0.3), [0, 0], tasks).best_z(0.05) == LEAST_Z
    assert curve((0.4, 0.3), [0, 0], tasks=19).best_z(0.05) == 0.0


def test_task_that_surely_loses_is_harmed_until_the_margin_keeps_it_from_adapters() -> None:
    tasks = np.repeat([0, 1], 20)
    predicted = np.where(tasks == 0, 0.5, 0.2)[:, None]
    gains = np.where(tasks == 0, 1.0, -1.0)[:, None]
    outcome = RiskCurve.of(predicted, np.full(40, 0.2), gains, tasks)
    at = {z: (g.tolist(), h.tolist()) for z, g, h in zip(*vars(outcome).values(), strict=True)}
    assert at[0.5] == ([1.0, -1.0], [False, True])
    assert at[1.0] == ([1.0, 0.0], [False, False])
    assert at[3.0] == ([0.0, 0.0], [False, False])


def test_probability_is_half_between_the_kinds_and_tells_them_apart() -> None:
    random = np.random.default_rng(0)
    known, new = random.normal(0.3, 0.05, 4000), random.normal(0.6, 0.05, 4000)
    novelty = Novelty.of(known, new)
    assert novelty.probability(np.array((novelty.known + novelty.new) / 2)) == pytest.approx(0.5)
    assert novelty.probability(known).mean() < 0.02
    assert novelty.probability(new).mean() > 0.98


def test_probability_is_that_of_the_new_kind() -> None:
    random = np.random.default_rng(0)
    known, new = random.normal(0.4, 0.1, 200_000), random.normal(0.55, 0.1, 200_000)
    both, is_new = np.concatenate([known, new]), np.repeat([0.0, 1.0], 200_000)
    probability = Novelty.of(known, new).probability(both)
    for low in (0.2, 0.4, 0.6):
        at = (probability >= low) & (probability < low + 0.2)
        assert is_new[at].mean() == pytest.approx(probability[at].mean(), abs=0.01)


def test_kinds_that_do_not_differ_are_equally_likely() -> None:
    same = np.full(5, 0.4)
    novelty = Novelty.of(same, same)
    assert novelty.spread == LEAST_SPREAD
    np.testing.assert_array_equal(novelty.probability(np.array([0.0, 0.4, 1.0])), 0.5)
    assert Novelty.of(same, same - 0.2).probability(np.array(0.9)) == 0.5
