"""When the base model answers: z from what was held out, and what there is to lose."""

from typing import Any

import numpy as np
import pytest
from traitroute.router.guard import LEAST_CARE, LEAST_Z, RiskCurve, care


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
    alone = RiskCurve.of(np.ones((40, 1)), np.full(40, 0.1), gains, np.zeros(40, np.intp), 1)
    assert alone.harmed[0].tolist() == [True]
    among = np.vstack([gains, np.tile([[1.0], [0.0]], (23 * 20, 1))])
    groups = np.repeat(np.arange(24), 40)
    many = RiskCurve.of(np.ones((960, 1)), np.full(960, 0.1), among, groups, 24)
    assert not many.harmed[0].any()


@pytest.mark.parametrize("tasks", [1, 2, 3, 18])
def test_few_tasks_without_harm_do_not_show_that_there_is_none(tasks: int) -> None:
    assert curve((0.4, 0.3), [0, 0], tasks).best_z(0.05) == LEAST_Z
    assert curve((0.4, 0.3), [0, 0], tasks=19).best_z(0.05) == 0.0


def test_task_that_surely_loses_is_harmed_until_the_margin_keeps_it_from_adapters() -> None:
    tasks = np.repeat([0, 1], 20)
    predicted = np.where(tasks == 0, 0.5, 0.2)[:, None]
    gains = np.where(tasks == 0, 1.0, -1.0)[:, None]
    outcome = RiskCurve.of(predicted, np.full(40, 0.2), gains, tasks, 2)
    at = {z: (g.tolist(), h.tolist()) for z, g, h in zip(*vars(outcome).values(), strict=True)}
    assert at[0.5] == ([1.0, -1.0], [False, True])
    assert at[1.0] == ([1.0, 0.0], [False, False])
    assert at[3.0] == ([0.0, 0.0], [False, False])


def test_harm_in_one_way_of_holding_out_is_harm() -> None:
    curves = [curve((0.4, 0.3, 0.2), harmed, tasks=60) for harmed in ([9, 0, 0], [0, 9, 0])]
    joined = RiskCurve.joined(curves)
    assert joined.best_z(0.05) == 1.0
    np.testing.assert_allclose(joined.gains[:, 0], [0.4, 0.3, 0.2])


def test_a_group_without_requests_of_a_class_is_not_harmed_there() -> None:
    found = RiskCurve.of(np.ones((20, 1)), np.full(20, 0.1), -np.ones((20, 1)), np.zeros(20, np.intp), 2)
    assert found.harmed[0].tolist() == [True, False]
    assert found.gains[0].tolist() == [-1.0, 0.0]


def test_there_is_most_to_lose_where_base_is_right_half_of_the_time() -> None:
    least = LEAST_CARE
    np.testing.assert_allclose(care(np.array([0.0, 0.5, 1.0, -0.1, 1.3])), [least, 1.0, least, least, least])
    assert care(np.array(0.1)) == pytest.approx(0.6)
