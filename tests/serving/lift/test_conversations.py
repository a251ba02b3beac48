"""What a conversation counts for: once, by whoever answered, weighted by the odds of that."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from traitroute.serving.lift.conversations import Conversations

Talk = Callable[..., Any]


def test_outcomes_of_one_conversation_count_as_their_mean(talk: Talk, later: datetime) -> None:
    soon = timedelta(minutes=30)
    first = talk(1, 1.0)
    told = [first, talk(1, 0.0, known=first.known + soon), talk(2, 0.25, held_back=True)]
    talks = Conversations.of(told, later)
    assert talks.reward.tolist() == [0.5, 0.25]
    assert talks.control.tolist() == [False, True]


def test_what_is_reported_after_the_hour_or_of_another_answerer_changes_nothing(talk: Talk, later: datetime) -> None:
    first = talk(1, 1.0)
    late = talk(1, 0.0, known=first.known + timedelta(hours=2))
    other = talk(1, 0.0, known=first.known + timedelta(minutes=2), adapter="idle", policy="idle")
    assert Conversations.of([late, other, first], later).reward.tolist() == [1.0]


def test_a_conversation_counts_an_hour_after_its_first_outcome_and_never_changes(talks: Talk, later: datetime) -> None:
    told = talks(0.1, 300)
    for now in (told[150].known, told[299].known):
        heard = [each for each in told if each.known <= now]
        seen = Conversations.of(heard, now)
        whole = Conversations.of(told, later)[: len(seen)]
        assert (seen.settling, len(seen) + seen.settling) == (60, len(heard))
        assert seen.known.tolist() == whole.known.tolist()
        assert seen.reward.tolist() == whole.reward.tolist()


def test_where_auto_chooses_base_the_gain_is_exactly_zero(talk: Talk, later: datetime) -> None:
    base = [talk(n, n % 2, adapter=None, policy=None, propensity=1.0) for n in range(10)]
    told = [*base, talk(10, 1.0), talk(11, 0.0, held_back=True)]
    talks = Conversations.of(told, later)
    for values in (talks.doubly_robust(), talks.inverse_propensity()):
        assert values.values[:10].tolist() == [0.0] * 10
        assert values.below[:10].tolist() == values.above[:10].tolist() == [0.0] * 10


@pytest.mark.parametrize("way", [Conversations.doubly_robust, Conversations.inverse_propensity])
def test_both_estimates_find_the_gain_whatever_was_predicted(way: Any, talks: Talk, later: datetime) -> None:
    for level in (0.0, 0.5, None):
        values = way(Conversations.of(talks(0.2, 20_000, base=0.4, level=level), later)).values
        assert values.mean() == pytest.approx(0.2, abs=3 * values.std() / np.sqrt(20_000))


def test_predictions_make_the_doubly_robust_estimate_the_sharper(talks: Talk, later: datetime) -> None:
    told = Conversations.of(talks(0.1, base=0.7, level=0.2), later)
    assert told.doubly_robust().values.std() < 0.7 * told.inverse_propensity().values.std()


def test_no_value_deviates_further_than_is_said(talks: Talk, later: datetime) -> None:
    told = Conversations.of(talks(0.1, base=0.7), later)
    for values in (told.doubly_robust(), told.inverse_propensity()):
        deviation = values.values - values.predictions
        assert (deviation >= -values.below - 1e-9).all()
        assert (deviation <= values.above + 1e-9).all()
        assert max(values.below.max(), values.above.max()) <= values.reach + 1e-9


def test_a_side_that_is_rarer_elsewhere_widens_the_bounds_before_it_is_drawn(talk: Talk, later: datetime) -> None:
    told = [talk(0, 1.0), talk(1, 0.0, held_back=True)]
    assert Conversations.of(told, later).doubly_robust().reach == pytest.approx(10)
    rare = talk(2, 1.0, propensity=0.99)
    assert Conversations.of([*told, rare], later).doubly_robust().reach == pytest.approx(100)


def test_expected_rewards_know_nothing_of_what_comes_later(talks: Talk, later: datetime) -> None:
    told = talks(0.1, 200)
    changed = [*told[:100], *(each.__class__(**vars(each) | {"reward": 1.0}) for each in told[100:])]
    first, second = (Conversations.of(each, later).doubly_robust() for each in (told, changed))
    assert first.predictions[:101].tolist() == second.predictions[:101].tolist()
    assert first.below[:101].tolist() == second.below[:101].tolist()


def test_base_tried_as_a_second_choice_is_no_control_group(talk: Talk, later: datetime) -> None:
    explored = talk(1, 1.0, adapter=None, propensity=0.1)
    talks = Conversations.of([talk(0, 1.0), explored], later)
    assert not talks.is_compared
    assert Conversations.of([talk(0, 1.0), explored, talk(2, 1.0, held_back=True)], later).is_compared
