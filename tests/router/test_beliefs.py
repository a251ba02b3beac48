"""How far each kind of evidence is believed."""

import numpy as np
import pytest
from numpy.random import default_rng
from traitroute.router.beliefs import EVIDENCE, USUAL, Played, _least_squares, fit_weights


def played(seed: int, groups: int = 30) -> Played:
    """Ten requests a group, a generalist, a specialist and two adapters that harm.

    The third evidence says when the specialist is better than the generalist; of the two it says nothing.
    """
    draw = default_rng(seed)
    told = draw.integers(2, size=(10 * groups, 4))
    parts = np.zeros((*told.shape, len(EVIDENCE)))
    parts[..., 0] = [0.3, 0.2] + 2 * [-0.3]
    parts[..., 2] = told
    gains = parts[..., 0] + draw.normal(0, 0.2, told.shape)
    gains[:, 1] += np.where(told[:, 1], 0.2, -0.2)
    n = len(told)
    return Played(parts, np.zeros((n, 2)), np.ones(n), gains, np.repeat(np.arange(groups), 10))


def gain(each: Played, weights: np.ndarray) -> float:
    """The mean gain of the best adapter or base, as the weights see it."""
    predicted = np.pad(each.predict(weights), ((0, 0), (1, 0)))
    return float(np.pad(each.gains, ((0, 0), (1, 0)))[np.arange(len(predicted)), predicted.argmax(axis=1)].mean())


def test_weights_lead_to_better_choices_than_those_of_least_error() -> None:
    """On requests that they were not learnt from."""
    learnt_on = [played(seed) for seed in range(3)]
    least, chosen = _least_squares(learnt_on), fit_weights(learnt_on)
    fresh = played(9)
    assert gain(fresh, chosen) > gain(fresh, least) + 0.02


def test_the_slope_of_soft_choices_is_right() -> None:
    """By differences."""
    each, at = played(0), USUAL.copy()
    _, slope = each.gained(at)
    for i in range(len(at)):
        step = 1e-6 * np.eye(len(at))[i]
        assert slope[i] == pytest.approx((each.gained(at + step)[0] - each.gained(at - step)[0]) / 2e-6, abs=1e-6)


def test_gains_are_predicted_at_their_size() -> None:
    """Choices do not depend on the scale of the weights, but what a user reads does."""
    each = played(0)
    predicted = each.predict(fit_weights([each]))
    assert np.sum(predicted * each.gains) / np.sum(predicted**2) == pytest.approx(1.0, abs=0.01)


def test_weights_are_the_usual_ones_where_nothing_was_held_out() -> None:
    """A profile of one task."""
    assert fit_weights([]) == pytest.approx(USUAL)


def test_weights_of_evidence_that_says_nothing_stay_finite() -> None:
    """No adapter gains anything, or no evidence is there."""
    each = played(0)
    still = Played(each.parts, each.base_views, each.unknown, np.zeros_like(each.gains), each.groups)
    assert fit_weights([still]) == pytest.approx(np.zeros(len(EVIDENCE)), abs=1e-6)
    nothing = Played(np.zeros_like(each.parts), each.base_views, each.unknown, each.gains, each.groups)
    assert np.all(np.isfinite(fit_weights([nothing])))
