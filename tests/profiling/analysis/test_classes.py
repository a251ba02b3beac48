"""Class balance, confusion and prior shift, against scikit-learn and on planted preferences."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from traitroute.adapters import InputError
from traitroute.profiling.analysis.classes import confusion, prior_shift, summarise

MOODS = ("negative", "neutral", "positive")


def planted(rng: np.random.Generator, n: int, to_neutral: float, unsaid: float = 0.0) -> np.ndarray:
    """True moods in equal shares, and predictions of which a share is turned to neutral or left out."""
    true = rng.integers(0, 3, n)
    predicted = np.where(rng.random(n) < to_neutral, 1, true)
    return np.stack([true, np.where(rng.random(n) < unsaid, -1, predicted)])


def test_even_classes_have_full_entropy() -> None:
    found = summarise([0, 1, 2, 2, 1, 0], MOODS)
    assert found.entropy_bits == pytest.approx(np.log2(3))
    assert (found.normalised_entropy, found.imbalance) == (pytest.approx(1), 1)
    assert found.counts.tolist() == [2, 2, 2]


def test_absent_class_is_infinite_imbalance_and_unlabelled_answers_are_counted_apart() -> None:
    found = summarise([0, 0, 0, 2, -1], MOODS)
    np.testing.assert_allclose(found.shares, [0.75, 0, 0.25])
    assert (found.imbalance, found.unlabelled) == (np.inf, 1)
    assert found.entropy_bits == pytest.approx(stats.entropy([3, 1], base=2))


def test_one_class_alone_has_no_entropy() -> None:
    found = summarise([0, 0], ["only"])
    assert (found.entropy_bits, found.normalised_entropy, found.imbalance) == (0, 0, 1)


def test_confusion_agrees_with_scikit_learn() -> None:
    true, predicted = planted(np.random.default_rng(0), 200, 0.3)
    found = confusion(true, predicted, MOODS)
    assert found.counts.shape == (3, 4)
    np.testing.assert_array_equal(found.counts[:, :3], metrics.confusion_matrix(true, predicted))
    np.testing.assert_allclose(found.recall, metrics.recall_score(true, predicted, average=None))
    np.testing.assert_allclose(found.precision, metrics.precision_score(true, predicted, average=None))
    assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(true, predicted))
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(true, predicted))


def test_answers_without_a_label_have_their_own_column_and_lower_recall() -> None:
    found = confusion([0, 0, 1, 2], [0, -1, 1, -1], MOODS)
    np.testing.assert_array_equal(found.counts, [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(found.recall, [0.5, 1, 0])
    np.testing.assert_allclose(found.precision, [1, 1, np.nan])
    assert found.kappa < 1


def test_bounds_hold_the_share_and_are_open_where_nothing_was_seen() -> None:
    found = confusion([0, 0, 0, 1], [0, 0, 1, 1], MOODS)
    known = stats.binomtest(2, 3).proportion_ci(method="wilson")
    np.testing.assert_allclose(found.recall_bounds[0], [known.low, known.high])
    np.testing.assert_array_equal(found.recall_bounds[2], [0, 1])
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)


def test_kappa_of_one_class_is_unknown() -> None:
    assert np.isnan(confusion([1, 1], [1, 1], MOODS).kappa)
    assert confusion([1, 1], [-1, -1], MOODS).kappa == 0


def test_over_predicted_label_is_found_and_its_bounds_exclude_zero() -> None:
    rng = np.random.default_rng(1)
    true, predicted = planted(rng, 400, 0.4)
    found = prior_shift(predicted, true, true, MOODS)
    assert found.adapter[1] == pytest.approx(0.4 * 2 / 3, abs=0.05)
    assert found.adapter_bounds[1, 0] > 0 > found.adapter_bounds[0, 1]
    assert found.adapter.sum() == pytest.approx(0)
    assert found.adapter_distance == pytest.approx(found.adapter[1])
    assert (found.base_distance, found.moved) == (0, pytest.approx(found.adapter_distance))
    assert found.p < 0.001


def test_bounds_have_a_width_where_every_answer_is_right() -> None:
    true = np.repeat([0, 1, 2], 8)
    low, high = prior_shift(true, true, true, MOODS).adapter_bounds.T
    assert (low < -0.1).all() and (high > 0.1).all()


def test_unlabelled_answers_are_a_shift_too() -> None:
    true, predicted = planted(np.random.default_rng(2), 300, 0.0, unsaid=0.5)
    found = prior_shift(predicted, true, true, MOODS)
    assert found.adapter[-1] == pytest.approx(0.5, abs=0.06)
    assert (found.adapter[:-1] < 0).all()


def test_disagreement_without_a_moved_prior_is_no_shift() -> None:
    rng = np.random.default_rng(3)
    p_values = []
    for seed in range(100):
        true = rng.integers(0, 3, 90)
        base, adapter = rng.choice(3, (2, 90), p=[0.6, 0.3, 0.1])
        p_values.append(prior_shift(adapter, base, true, MOODS, n_resamples=200, seed=seed).p)
    assert np.mean(np.array(p_values) < 0.05) <= 0.11
    assert np.median(p_values) == pytest.approx(0.5, abs=0.2)


def test_p_agrees_with_mcnemar_for_two_labels() -> None:
    base, adapter = np.repeat([[0, 1], [1, 0], [0, 0]], [14, 5, 30], axis=0).T
    found = prior_shift(adapter, base, np.zeros(49, int), ["no", "yes"], n_resamples=20_000)
    assert found.p == pytest.approx(stats.binomtest(5, 19).pvalue, abs=0.01)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([0, 3], [0, 0], r"\[0, 3\] where 3 labels allow \[0, 2\]"),
        ([0, -1], [0, 0], r"allow \[0, 2\]"),
        ([0, 1], [0, -2], r"allow \[-1, 2\]"),
        ([0, 1], [0], "2 true and 1 predicted"),
        ([], [], "one label index an example"),
        ([0.5], [0], "one label index an example"),
    ],
)
def test_classes_that_cannot_be_are_refused(true: list, predicted: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        confusion(true, predicted, MOODS)


def test_no_label_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="no example has a label"):
        summarise([-1, -1], MOODS)
