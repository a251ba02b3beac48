"""How corrections learnt from feedback move predicted gains."""

from dataclasses import replace
from typing import Any

import pytest
from traitroute.router import Corrections, Router, RoutingProfile, TrainingRows


def corrected(profile: RoutingProfile, **parts: Any) -> RoutingProfile:
    """The profile with corrections of chef, the first adapter: `near` by kind."""
    values = Corrections.none(len(profile.adapters), len(profile.tasks), parts.pop("bound", 0.5))
    for kind, value in parts.pop("near", {}).items():
        values.near[0, profile.tasks.index(kind)] = value
    for part, value in parts.items():
        getattr(values, part)[0] = value
    return replace(profile, corrections=values)


def moved(before: RoutingProfile, after: RoutingProfile, text: str) -> dict[str, float]:
    """By how much the gain predicted of each adapter is moved."""
    gains = [{a.adapter: a.gain for a in Router(p).route(text).ranking} for p in (before, after)]
    return {name: gains[1][name] - gains[0][name] for name in gains[0]}


def test_a_correction_moves_its_kind_and_no_other(profile: RoutingProfile, topic_texts: Any) -> None:
    [cooking], [law] = (topic_texts(topic, 1, seed=9) for topic in ("cooking", "law"))
    after = corrected(profile, near={"cooking": -0.3})
    assert -0.31 < moved(profile, after, cooking)["chef"] < -0.15
    assert abs(moved(profile, after, law)["chef"]) < 0.05
    assert moved(profile, after, cooking)["pilot"] == 0


def test_what_is_like_nothing_profiled_has_a_correction_of_its_own(profile: RoutingProfile, topic_texts: Any) -> None:
    [cooking] = topic_texts("cooking", 1, seed=9)
    after = corrected(profile, novel=-0.3)
    assert moved(profile, after, cooking)["chef"] == 0
    assert moved(profile, after, "integrate x squared from zero to seven")["chef"] == pytest.approx(-0.3)


def test_no_gain_is_raised_of_what_is_like_nothing_profiled(profile: RoutingProfile, topic_texts: Any) -> None:
    [cooking], new = topic_texts("cooking", 1, seed=9), "integrate x squared from zero to seven"
    after = corrected(profile, general=0.2, novel=0.3)
    assert moved(profile, after, cooking)["chef"] == pytest.approx(0.2)
    assert moved(profile, after, new)["chef"] == 0
    assert moved(profile, corrected(profile, general=0.2, novel=-0.3), new)["chef"] == pytest.approx(-0.1)


def test_no_sum_of_corrections_exceeds_the_bound(profile: RoutingProfile, topic_texts: Any) -> None:
    [cooking] = topic_texts("cooking", 1, seed=9)
    after = corrected(profile, general=-0.4, near={"cooking": -0.4}, bound=0.1)
    assert moved(profile, after, cooking)["chef"] == pytest.approx(-0.1)


def test_corrections_are_kept_and_explained(profile: RoutingProfile, topic_texts: Any) -> None:
    [cooking] = topic_texts("cooking", 1, seed=9)
    after = corrected(profile, general=0.05)
    kept = RoutingProfile.from_bytes(after.to_bytes())
    assert kept.to_bytes() == after.to_bytes() != profile.to_bytes()
    decision = Router(kept).route(cooking)
    assert decision == Router(after).route(cooking)
    assert decision.contributions["feedback"] == pytest.approx(0.05)
    assert sum(decision.contributions.values()) == pytest.approx(decision.ranking[0].gain)
    assert "feedback" not in Router(profile).route(cooking).contributions


def test_other_weights_behind_a_name_start_without_corrections(profile: RoutingProfile, topic_texts: Any) -> None:
    [cooking] = topic_texts("cooking", 1, seed=9)
    after = corrected(profile, general=-0.3)
    rows = TrainingRows([], [])
    joined = after.with_adapter("newcomer", profile.trait_scores[2], rows)
    replaced = after.with_adapter("chef", profile.trait_scores[0], rows)
    assert joined.corrections is not None and replaced.corrections is not None
    assert joined.corrections.anywhere.tolist() == [True, False, False, False]
    assert replaced.corrections.anywhere.tolist() == [False, False, False]
    alone = Router(after, routable=frozenset({"idle", "chef"})).route(cooking)
    assert alone.ranking[0].gain == pytest.approx(Router(after).route(cooking).ranking[0].gain)
