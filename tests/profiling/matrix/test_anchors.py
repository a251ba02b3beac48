"""Anchors tell of a task what the other examples would, and say how sure they are."""

import numpy as np
import pytest
from traitroute.profiling.matrix.anchors import AnchorRow, TaskAnchors, rounds

RNG = np.random.default_rng(0)
HALVES = np.repeat([[1.0], [0.0]], 20, axis=0)
"""Two kinds of examples, which known adapters get right or wrong together: some say the one answer always, some the
other.
"""


def two_kinds(known: int = 12) -> TaskAnchors:
    return TaskAnchors.of(np.hstack([HALVES, 1 - HALVES] * (known // 2)))


def test_one_example_of_each_kind_tells_of_its_whole_kind() -> None:
    anchors = two_kinds()
    first, second = anchors.order[:2]
    assert (first < 20) != (second < 20)
    found = anchors.estimate(np.array([first, second]), HALVES[[first, second], 0])
    assert found.examples[:20].mean() > 0.8
    assert found.examples[20:].mean() < 0.2
    assert found.score == pytest.approx(0.5, abs=0.1)


def test_what_few_known_adapters_have_in_common_is_believed_less() -> None:
    few, many = two_kinds(2), two_kinds(12)
    measured, scores = few.order[:4], HALVES[few.order[:4], 0]
    said, known = few.estimate(measured, scores), many.estimate(measured, scores)
    assert said.examples[:20].mean() < known.examples[:20].mean() - 0.1
    assert said.error > 1.3 * known.error


def test_the_error_shrinks_with_every_example_and_is_none_at_the_end() -> None:
    anchors = two_kinds()
    errors = [anchors.estimate(anchors.order[:n], HALVES[anchors.order[:n], 0]).error for n in (0, 2, 10, 40)]
    assert errors[0] > errors[1] > errors[2] > errors[3] == 0.0
    assert np.all(np.diff(anchors.left) <= 1e-9)


def test_examples_that_were_measured_are_taken_as_they_are() -> None:
    anchors = TaskAnchors.of(RNG.integers(0, 2, (30, 4)), RNG.normal(size=(30, 3)))
    right = RNG.integers(0, 2, 30).astype(float)
    assert anchors.estimate(np.arange(30), right).score == pytest.approx(right.mean())


def test_a_task_on_which_all_known_adapters_fail_still_leaves_room_for_surprise() -> None:
    anchors = TaskAnchors.of(np.zeros((50, 6)))
    none = anchors.estimate(np.zeros(0, np.intp), np.zeros(0))
    assert 0 < none.error < 0.1
    right = anchors.estimate(anchors.order[:2], np.ones(2))
    assert right.score > 0.5


def test_scores_that_hardly_vary_are_sure_sooner_than_right_or_wrong_answers_of_the_same_mean() -> None:
    rng = np.random.default_rng(3)
    graded = np.clip(rng.normal(0.5, 0.05, (60, 5)), 0, 1)
    answers = rng.integers(0, 2, (60, 5)).astype(float)
    sure, unsure = TaskAnchors.of(graded), TaskAnchors.of(answers)
    few = sure.estimate(sure.order[:6], graded[sure.order[:6], 0])
    assert few.error < unsure.estimate(unsure.order[:6], answers[unsure.order[:6], 0]).error / 3
    chosen = AnchorRow([sure, unsure]).next(10)
    assert len(chosen[1]) > 2 * len(chosen.get(0, ()))
    # An adapter whose scores vary more than those of the known ones is not taken for a steady one.
    assert sure.estimate(sure.order[:6], np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])).error > 3 * few.error


def test_errors_of_graded_scores_are_no_less_honest_than_those_of_right_or_wrong_answers() -> None:
    rng = np.random.default_rng(4)
    graded, answered = [], []
    for _ in range(200):
        easy = rng.beta(4, 4, (40, 1)) + rng.uniform(-0.2, 0.2)
        scores = np.clip(easy + rng.normal(0, 0.1, (40, 6)), 0, 1)
        graded.append(_off(scores))
        answered.append(_off((rng.random(scores.shape) < scores).astype(float)))
    assert np.std(graded) < np.std(answered)


def _off(scores: np.ndarray) -> float:
    """How far eight examples of the last column are from telling all, in standard errors."""
    anchors = TaskAnchors.of(scores[:, :-1])
    found = anchors.estimate(anchors.order[:8], scores[anchors.order[:8], -1])
    return (found.score - scores[:, -1].mean()) / found.error


def test_examples_go_to_the_task_that_leaves_most_doubt() -> None:
    row = AnchorRow([TaskAnchors.of(np.zeros((50, 6))), TaskAnchors.of(RNG.integers(0, 2, (50, 6)))])
    chosen = row.next(10)
    assert len(chosen.get(1, ())) > len(chosen.get(0, ()))
    for task, places in chosen.items():
        row.add(task, places, (np.arange(len(places)) % 2).astype(np.float64))
    assert row.done == 10
    again = row.next(100)
    assert sum(map(len, again.values())) == 90
    assert not set(again[1].tolist()) & set(chosen[1].tolist())


def test_rounds_end_at_the_share_but_give_every_task_a_few_examples() -> None:
    assert rounds(1000, 10, 0.1)[-1] == 100
    assert rounds(1000, 50, 0.1)[-1] == 150
    assert rounds(40, 20, 0.1)[-1] == 40
    assert np.all(np.diff(rounds(40, 20, 1.0)) > 0)


def test_rounds_of_a_larger_share_begin_with_those_of_a_smaller_one() -> None:
    small, large = rounds(1000, 5, 0.1), rounds(1000, 5, 0.4)
    assert large[: len(small)].tolist() == small.tolist()
