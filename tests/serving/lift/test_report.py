"""The report says what is better, what is worse, what is not known, and what is missing."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from traitroute.adapters import FeedbackSource
from traitroute.serving.lift import LiftReport
from traitroute.serving.lift.outcomes import Reported

Talks = Callable[..., Any]


def report(outcomes: Any, now: datetime, **parts: Any) -> LiftReport:
    return LiftReport.of(Reported(FeedbackSource.USER, outcomes, **parts), now)


@pytest.mark.parametrize(("gain", "verdict"), [(0.3, "better"), (-0.3, "worse"), (0.0, "not known")])
def test_a_large_gain_or_loss_is_seen_and_none_is_not(talks: Talks, later: datetime, gain: float, verdict: str) -> None:
    total = report(talks(gain), later).total
    assert total.verdict == verdict
    assert total.estimate is not None
    assert total.estimate.low < gain < total.estimate.high
    assert total.reward_auto == pytest.approx(0.5 + gain, abs=0.03)
    assert total.reward_base == pytest.approx(0.5, abs=0.08)


def test_a_kind_that_is_worse_off_is_named_though_all_are_better(talks: Talks, later: datetime) -> None:
    good = talks(0.4, 6000)
    bad = [
        each.__class__(**vars(each) | {"conversation": f"bad {i}", "kind": "law", "policy": "pilot"})
        for i, each in enumerate(talks(-0.4, 2000, seed=1))
    ]
    bad = [each.__class__(**vars(each) | {"adapter": each.adapter and "pilot"}) for each in bad]
    found = report([*good, *bad], later, kinds=5, adapters=3)
    assert found.total.verdict == "better"
    assert [(each.name, each.verdict) for each in found.kinds] == [("cooking", "better"), ("law", "worse")]
    assert [(each.name, each.verdict) for each in found.adapters] == [("chef", "better"), ("pilot", "worse")]


def test_a_key_that_floods_is_told_with_what_the_others_say(talks: Talks, later: datetime) -> None:
    flood = talks(0.4, 4000, reporter="a")
    honest = [
        each.__class__(**vars(each) | {"conversation": f"honest {i}"})
        for i, each in enumerate(talks(-0.2, 1000, seed=1, reporter="b"))
    ]
    [note] = report([*flood, *honest], later).notes
    assert note.startswith(
        "one API key reported 80% of the conversations and may decide the gain; by the others it is -0."
    )
    assert report(flood, later).notes == ()
    assert report([*flood[:500], *honest[:500]], later).notes == ()


def test_intervals_by_kind_are_wider_the_more_kinds_there_may_be(talks: Talks, later: datetime) -> None:
    told = talks(0.1)
    few, many = (report(told, later, kinds=n).kinds[0].estimate for n in (1, 50))
    assert few is not None and many is not None
    assert many.low < few.low < few.high < many.high
    assert report(told, later, kinds=1).total.estimate == few


def test_days_end_at_the_estimate_of_all(talks: Talks, later: datetime) -> None:
    found = report(talks(0.1), later)
    assert [day.day for day in found.days] == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert found.days[-1].so_far == found.total.estimate
    assert sum(day.conversations for day in found.days) == 4000


def test_more_traffic_shows_a_smaller_gain_and_a_point_takes_days(talks: Talks, later: datetime) -> None:
    few, many = (report(talks(0.1, count), later).planning for count in (1000, 4000))
    assert few is not None and many is not None
    assert many.detectable < few.detectable
    assert many.days_for_a_point is not None
    # Times as many conversations as the gain is smaller, squared, and a little more for looking for longer.
    squared = 4000 / (24 * 60) * (many.detectable / 0.01) ** 2
    assert squared < many.days_for_a_point < 1.5 * squared


def test_what_is_missing_is_said_with_its_cure(talks: Talks, talk: Callable[..., Any], later: datetime) -> None:
    told = talks(0.1, 200)
    cases = {
        "POST /v1/feedback": report([], later),
        "set TRAITROUTE_HOLDBACK=0.02": report([], later, outside=7),
        "none held back": report([each for each in told if not each.control], later),
        "and no other has an outcome": report([each for each in told if each.control], later),
        "less than an hour old": report(told[:1], told[0].known),
        "auto chooses base": report([talk(0, 1.0, adapter=None, policy=None, propensity=1.0)], later),
    }
    for words, found in cases.items():
        assert [note for note in found.notes if words in note] == list(found.notes) != []
        assert found.total.estimate is None
        assert found.days == ()


def test_outcomes_that_come_from_one_side_more_often_are_doubted(talks: Talks, later: datetime) -> None:
    told = talks(0.1)
    assert report(told, later).notes == ()
    control = [each for each in told if each.control]
    quiet = [each for i, each in enumerate(told) if each.control or i % 3 == 0]
    [note] = report(quiet, later).notes
    assert "10.0% were drawn" in note
    assert len(control) > 300
