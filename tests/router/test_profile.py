"""Routing profiles as bytes."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from traitroute.adapters import RegistryError
from traitroute.router import Router, RoutingProfile, TrainingRows


def header_of(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["traitroute"])


def rewritten(data: bytes, *, drop: str = "", **changes: Any) -> bytes:
    """The same profile with header keys changed, or a tensor or header key dropped."""
    header = {k: v for k, v in (header_of(data) | changes).items() if k != drop}
    tensors = {k: v for k, v in load(data).items() if k != drop}
    return save(tensors, metadata={"traitroute": json.dumps(header)})


def test_restored_profile_decides_alike(profile: RoutingProfile, topic_texts: Any) -> None:
    restored = Router(RoutingProfile.from_bytes(profile.to_bytes()))
    for topic in profile.tasks:
        for text in [*topic_texts(topic, 5, seed=9), "", "xqzt 😀"]:
            assert restored.route(text) == Router(profile).route(text)


def test_restored_profile_is_written_as_the_same_bytes(profile: RoutingProfile) -> None:
    data = profile.to_bytes()
    assert RoutingProfile.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_profile_is_refused(profile: RoutingProfile, keep: int) -> None:
    with pytest.raises(RegistryError, match="fit it anew"):
        RoutingProfile.from_bytes(profile.to_bytes()[:keep])


def test_a_fleet_that_grows_one_by_one_has_no_more_places_than_there_is_room(
    profile: RoutingProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traitroute.router.profile.IN_ALL", int(profile.training.places.sum()) + 3)
    rows = TrainingRows.read(
        [*(f"sort the words {i}" for i in range(20)), *(f"is this film good, {i}?" for i in range(20))], ["a"] * 40
    )
    for name in ("first", "second", "third"):
        profile = profile.with_adapter(name, profile.trait_scores[0], rows)
    first, second, third = profile.training.places[-3:]
    assert first > 1 == second == third
    # One that is measured anew is given the places that it had.
    again = profile.with_adapter("first", profile.trait_scores[0], rows)
    assert again.training.places.tolist() == profile.training.places.tolist()


def test_other_format_is_refused_by_number(profile: RoutingProfile) -> None:
    with pytest.raises(RegistryError, match="format 1, this version reads 12"):
        RoutingProfile.from_bytes(rewritten(profile.to_bytes(), format=1))


@pytest.mark.parametrize("drop", ["demands", "features.basis", "kinds.words", "error_unknown", "z"])
def test_profile_that_lacks_a_part_is_refused_when_read(profile: RoutingProfile, drop: str) -> None:
    with pytest.raises(RegistryError, match=drop):
        RoutingProfile.from_bytes(rewritten(profile.to_bytes(), drop=drop))


@pytest.mark.parametrize(
    "data",
    [b"SQLite format 3\0" * 9, save({}, metadata={"other": "1"}), save({}, metadata=None)],
    ids=["not safetensors", "not ours", "no metadata"],
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RegistryError, match="cannot be read"):
        RoutingProfile.from_bytes(data)


def test_one_more_adapter_changes_no_prediction_of_the_others(profile: RoutingProfile, topic_texts: Any) -> None:
    grown = profile.with_adapter("twin", profile.trait_scores[0])
    assert grown.adapters == (*profile.adapters, "twin")
    for text in topic_texts("garden", 5, seed=9):
        gains = {a.adapter: a.gain for a in Router(grown).route(text).ranking}
        assert gains.pop("twin") == gains["chef"]
        assert gains == {a.adapter: a.gain for a in Router(profile).route(text).ranking}


def test_an_adapter_measured_anew_takes_its_old_place(profile: RoutingProfile) -> None:
    again = profile.with_adapter("chef", profile.trait_scores[1])
    assert again.adapters == profile.adapters
    assert (again.trait_scores[0] == profile.trait_scores[1]).all()
    assert (again.trait_scores[1:] == profile.trait_scores[1:]).all()


def test_matching_training_does_not_speak_for_an_adapter_that_lost_there(
    profile: RoutingProfile, topic_texts: Any
) -> None:
    profile = replace(profile, weights=np.full_like(profile.weights, 0.8))
    rows = TrainingRows.read(topic_texts("garden", 20, seed=1), ["yes"] * 20)
    supply, losses = profile.trait_scores[2], np.full(len(profile.tasks), -0.1)
    unmeasured = Router(profile.with_adapter("idle2", supply, rows))
    measured = Router(profile.with_adapter("idle2", supply, rows, gains=losses))
    for text in topic_texts("garden", 5, seed=9):
        thought, known = (
            {a.adapter: a.gain for a in router.route(text).ranking}["idle2"] for router in (unmeasured, measured)
        )
        assert known < thought - 0.1


def test_an_adapter_unlike_any_fitted_one_is_predicted_as_it_was_measured(
    profile: RoutingProfile, topic_texts: Any
) -> None:
    lawyer = np.array([-1.0 if topic != "law" else 1.0 for topic in profile.tasks])
    alike = profile.trait_scores[0]
    taken_for_chef = Router(profile.with_adapter("lawyer", alike))
    grown = Router(profile.with_adapter("lawyer", alike, gains=lawyer), z=0.0)
    for text in topic_texts("cooking", 5, seed=9):
        assert {a.adapter: a.gain for a in taken_for_chef.route(text).ranking}["lawyer"] > 0.3
        assert grown.route(text).adapter == "chef"
    assert [grown.route(text).adapter for text in topic_texts("law", 5, seed=9)] == ["lawyer"] * 5


def test_what_traits_cannot_express_is_a_part_of_the_gain(profile: RoutingProfile, topic_texts: Any) -> None:
    grown = profile.with_adapter("lawyer", profile.trait_scores[0], gains=np.ones(4))
    decision = Router(RoutingProfile.from_bytes(grown.to_bytes()), z=0.0).route(topic_texts("law", 1, seed=9)[0])
    assert decision.adapter == "lawyer"
    assert decision.contributions["residual"] > 0.3
    assert sum(decision.contributions.values()) == pytest.approx(decision.gain)
