"""How the caution follows from tasks left out."""

import numpy as np
import pytest
from traitroute.router.caution import FEW_TASKS, CautionPoint, caution_curve, least_caution


def curve(harmed: dict[float, int]) -> list[CautionPoint]:
    return [CautionPoint(caution, 0.1, count) for caution, count in harmed.items()]


def test_caution_is_the_least_that_harms_few_enough() -> None:
    found = curve({0.0: 5, 0.5: 2, 1.0: 1, 1.5: 0})
    assert least_caution(found, tasks=60, risk=0.05) == 0.5
    assert least_caution(found, tasks=40, risk=0.05) == 1.0
    assert least_caution(found, tasks=20, risk=0.05) == 1.5


def test_caution_above_which_harm_returns_is_not_taken() -> None:
    assert least_caution(curve({0.0: 0, 0.5: 9, 1.0: 0}), tasks=40, risk=0.05) == 1.0


@pytest.mark.parametrize("tasks", [2, 3, 18])
def test_few_tasks_without_harm_do_not_show_that_there_is_none(tasks: int) -> None:
    assert least_caution(curve({0.0: 0, 0.5: 0}), tasks, risk=0.05) == FEW_TASKS
    assert least_caution(curve({0.0: 0, 0.5: 0}), tasks=19, risk=0.05) == 0.0


def test_harm_at_every_caution_gives_the_highest() -> None:
    assert least_caution(curve({0.0: 9, 6.0: 9}), tasks=40, risk=0.05) == 6.0


def test_curve_counts_tasks_that_lose_surely() -> None:
    tasks = np.repeat([0, 1], 20)
    predicted = np.where(tasks == 0, 0.5, 0.2)[:, None]
    gains = np.where(tasks == 0, 1.0, -1.0)[:, None]
    points = caution_curve(predicted, np.full(40, 0.2), gains, tasks)
    at = {p.caution: p for p in points}
    assert (at[0.0].harmed, at[0.0].gain) == (1, 0.0)
    assert (at[1.0].harmed, at[1.0].gain) == (0, 0.5)
    assert (at[3.0].harmed, at[3.0].gain) == (0, 0.0)
