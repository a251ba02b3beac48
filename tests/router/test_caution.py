"""How the caution follows from tasks left out."""

from typing import Any

import numpy as np
import pytest
from traitroute.router.caution import FEW_TASKS, CautionCurve


def curve(gains: Any, harmed: list[int], tasks: int = 40) -> CautionCurve:
    """A curve of the same gain for every task, where at each caution the first tasks are harmed."""
    cautions = np.arange(len(harmed)) / 2
    harms = np.arange(tasks) < np.array(harmed)[:, None]
    return CautionCurve(cautions, np.repeat(np.array(gains)[:, None], tasks, axis=1), harms)


def test_risk_is_kept_with_one_more_task_counted_as_harmed() -> None:
    falling = (0.4, 0.3, 0.2, 0.1)
    assert curve(falling, [5, 2, 1, 0], tasks=60).caution(0.05) == 0.5
    assert curve(falling, [5, 2, 1, 0], tasks=40).caution(0.05) == 1.0
    assert curve(falling, [5, 2, 1, 0], tasks=20).caution(0.05) == 1.5


def test_caution_above_which_harm_returns_is_not_taken() -> None:
    assert curve((0.4, 0.3, 0.2), [0, 9, 0]).caution(0.05) == 1.0


def test_harm_at_every_caution_gives_the_highest() -> None:
    assert curve((0.4, 0.3), [9, 9]).caution(0.05) == 0.5


def test_caution_that_costs_nothing_is_taken() -> None:
    assert curve((0.4, 0.4, 0.3), [0, 0, 0]).caution(0.05) == 0.5


def test_the_best_of_the_safe_cautions_is_taken_though_a_higher_one_is_safe_too() -> None:
    assert curve((0.1, 0.2, 0.4, 0.3), [9, 0, 0, 0]).caution(0.05) == 1.0


def test_a_loss_that_one_of_many_groups_has_by_chance_is_no_harm() -> None:
    # A tenth of the answers lost, none won: 2.1 standard errors, which is nothing among 24 groups, and something of one alone.
    gains = np.where(np.arange(40) < 4, -1.0, 0.0)[:, None]
    alone = CautionCurve.of(np.ones((40, 1)), np.full(40, 0.1), gains, np.zeros(40, np.intp))
    assert alone.harmed[0].tolist() == [True]
    among = np.vstack([gains, np.tile([[1.0], [0.0]], (23 * 20, 1))])
    groups = np.repeat(np.arange(24), 40)
    many = CautionCurve.of(np.ones((960, 1)), np.full(960, 0.1), among, groups)
    assert not many.harmed[0].any()


@pytest.mark.parametrize("tasks", [1, 2, 3, 18])
def test_few_tasks_without_harm_do_not_show_that_there_is_none(tasks: int) -> None:
    assert curve((0.4, 0.3), [0, 0], tasks).caution(0.05) == FEW_TASKS
    assert curve((0.4, 0.3), [0, 0], tasks=19).caution(0.05) == 0.0


def test_task_that_surely_loses_is_harmed_until_caution_keeps_it_from_adapters() -> None:
    tasks = np.repeat([0, 1], 20)
    predicted = np.where(tasks == 0, 0.5, 0.2)[:, None]
    gains = np.where(tasks == 0, 1.0, -1.0)[:, None]
    found = CautionCurve.of(predicted, np.full(40, 0.2), gains, tasks)
    at = {c: (g.tolist(), h.tolist()) for c, g, h in zip(*vars(found).values(), strict=True)}
    assert at[0.5] == ([1.0, -1.0], [False, True])
    assert at[1.0] == ([1.0, 0.0], [False, False])
    assert at[3.0] == ([0.0, 0.0], [False, False])
