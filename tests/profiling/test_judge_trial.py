"""A judge is believed as far as its trial shows: between tasks as well as between answers."""

import numpy as np
import pytest
from numpy.typing import NDArray
from traitroute.adapters import MetricError
from traitroute.profiling.judge_trial import JudgeTrial, TrialCell

ADAPTERS, ANSWERS = 5, 30


def trial(errs: float, likes: float = 0.0, *, tasks: int = 20, seed: int = 0) -> JudgeTrial:
    """A judge that errs on a share of answers, and likes all that an adapter says on a task with a probability."""
    draw, cells = np.random.default_rng(seed), []
    for task in range(tasks):
        for adapter in range(ADAPTERS):
            gains = draw.choice([-1.0, 0.0, 1.0], ANSWERS, p=draw.dirichlet([1, 3, 1]))
            said = np.where(draw.random(ANSWERS) < errs, draw.choice([-1.0, 1.0], ANSWERS), gains)
            cells.append(
                TrialCell(str(adapter), str(task), said if draw.random() >= likes else np.ones(ANSWERS), gains)
            )
    return JudgeTrial.of(cells)


def verdicts(*means: float, n: int = 50) -> list[NDArray[np.float64]]:
    """So many verdicts of each adapter, wins and ties or losses and ties."""
    return [np.sign(mean) * (np.arange(n) < round(abs(mean) * n)) for mean in means]


def test_errors_and_likings_are_told_apart() -> None:
    errs, likes = trial(0.3), trial(0.0, 0.2)
    assert errs.slope == pytest.approx(0.7, abs=0.05)
    assert errs.noise > 0.1 and errs.liking**0.5 < 0.15
    assert 0.3 < likes.liking**0.5 < 0.7
    assert likes.noise < errs.noise


def test_more_answers_do_not_make_up_for_a_liking() -> None:
    judge = trial(0.2, 0.2)
    few, many = (judge.judged(verdicts(1.0, n=n), np.zeros(1), 0.15) for n in (20, 20_000))
    assert many.variances[0] > 0.8 * few.variances[0] > 0.015
    assert many.means[0] < 0.1


def test_a_fair_judge_is_believed_and_a_gain_is_sure() -> None:
    believed = trial(0.1).judged(verdicts(0.5, 0.0, -0.4), np.array([0.0, 0.05, 0.1]), 0.2)
    assert believed.means[0] > 0.35 and believed.means[2] < -0.2
    lead, low = believed.lead(np.array([0.0, 0.5, 0.5]), np.array([1.0, 0.0, 0.0]))
    assert lead > low > 0
    assert believed.lead(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])) == (0.0, 0.0)


def test_without_verdicts_what_was_predicted_is_believed() -> None:
    believed = trial(0.1).judged([np.zeros(0)], np.array([0.3]), 0.2)
    assert (believed.means[0], believed.variances[0]) == pytest.approx((0.3, 0.04))


def test_verdicts_that_no_gain_explains_count_for_nothing() -> None:
    believed = trial(0.5).judged(verdicts(1.0, n=60), np.array([0.1]), 0.2)
    assert believed.means[0] == pytest.approx(0.1)


def test_a_trial_on_few_tasks_is_refused() -> None:
    with pytest.raises(MetricError, match="tried on 5 tasks with 2 adapters or more, and it takes 6"):
        trial(0.1, tasks=5)
    cells = [TrialCell("a", str(task), np.ones(9), np.ones(9)) for task in range(9)]
    with pytest.raises(MetricError, match="tried on 0 tasks"):
        JudgeTrial.of(cells)


def test_a_judge_that_tells_nothing_is_refused() -> None:
    with pytest.raises(MetricError, match="do not tell right answers from wrong ones"):
        trial(1.0)
    same = [TrialCell(a, str(task), np.ones(9), np.zeros(9)) for task in range(9) for a in "ab"]
    with pytest.raises(MetricError, match="gain nothing on its tasks"):
        JudgeTrial.of(same)
