"""Routing profiles as bytes."""

import json
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
    with pytest.raises(RegistryError, match="run `traitroute profile` again"):
        RoutingProfile.from_bytes(profile.to_bytes()[:keep])


def test_other_format_is_refused_by_number(profile: RoutingProfile) -> None:
    with pytest.raises(RegistryError, match="format 1, this version reads 2"):
        RoutingProfile.from_bytes(rewritten(profile.to_bytes(), format=1))


@pytest.mark.parametrize(
    "drop", ["demand.coef_", "features.whole_basis_", "centroids", "error_new"]
)
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


def test_one_more_adapter_changes_no_prediction_of_the_others(
    profile: RoutingProfile, topic_texts: Any
) -> None:
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


def test_home_does_not_speak_for_an_adapter_that_gained_nothing_there(
    profile: RoutingProfile, topic_texts: Any
) -> None:
    rows = TrainingRows.read(topic_texts("garden", 20, seed=1), ["yes"] * 20)
    supply, nothing = profile.trait_scores[2], np.zeros(len(profile.tasks))
    idle = profile.with_adapter("idle2", supply, rows, gains=nothing)
    able = profile.with_adapter("able", supply, rows, gains=nothing + 0.5)
    assert idle.home_weights[-1, 0] == 0.0
    assert able.home_weights[-1, 0] == profile.home_weights[0, 0]
