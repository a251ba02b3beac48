"""A judged kind joins the profile and leaves it: its requests go by what was judged, and no others change."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import RegistryError
from traitroute.router import Router, RoutingProfile

STRANGE = [f"zxqv wibble frobnicate {word} glorp quux blarg" for word in "abcdefghijkl"]
KIND = "3f9a01c2"


def judged(profile: RoutingProfile, *gains: float, error: float = 0.05) -> RoutingProfile:
    return profile.with_kind(KIND, profile.features.transform(STRANGE[:8]), np.array(gains), error)


@pytest.fixture
def gains(profile: RoutingProfile) -> list[float]:
    """The first adapter was not judged, the second gains more than predicted."""
    return [0.0, 1.5, *[-0.2] * (len(profile.adapters) - 2)]


def test_requests_of_the_kind_go_by_what_was_judged(profile: RoutingProfile, gains: list[float]) -> None:
    grown = judged(profile, *gains)
    for text in STRANGE[8:]:
        decision = Router(grown).route(text, explain=True)
        assert decision.adapter == profile.adapters[1]
        assert (decision.recurring, decision.is_new) == (KIND, False)
        assert decision.reason.endswith(f"of the recurring kind {KIND}, judged")
        before = profile.predict(text)
        assert decision.gain == pytest.approx(min(before.gains[1] + 1.5, 1.0))
        assert sum(decision.contributions.values()) == pytest.approx(decision.gain)
        assert decision.contributions["judged"] == 1.5
        assert decision.caution == pytest.approx(profile.z * 0.05)
        assert grown.predict(text).gains[0] == before.gains[0]


def test_other_requests_are_decided_as_before(profile: RoutingProfile, gains: list[float], topic_texts: Any) -> None:
    grown = judged(profile, *gains)
    for text in [t for topic in profile.tasks for t in topic_texts(topic, 5, seed=9)]:
        assert Router(grown).route(text) == Router(profile).route(text)


def test_many_are_predicted_as_one_by_one(profile: RoutingProfile, gains: list[float], topic_texts: Any) -> None:
    grown = judged(profile, *gains)
    texts = [*STRANGE[8:], *topic_texts(profile.tasks[0], 3, seed=9)]
    many = grown.predict_many(texts)
    single = np.array([grown.predict(text).gains for text in texts])
    np.testing.assert_allclose(many.gains, single, atol=1e-6)
    chosen = Router(grown).choose(texts).chosen
    assert [grown.adapters[i] if i >= 0 else None for i in chosen] == [Router(grown).route(t).adapter for t in texts]


def test_a_kind_is_stored_replaced_and_taken_back(profile: RoutingProfile, gains: list[float]) -> None:
    grown = judged(profile, *gains)
    restored = RoutingProfile.from_bytes(grown.to_bytes())
    assert Router(restored).route(STRANGE[9]) == Router(grown).route(STRANGE[9])
    again = judged(restored, *[0.1] * len(gains))
    assert again.recurring is not None and again.recurring.names == (KIND,)
    assert again.predict(STRANGE[9]).gains[1] == pytest.approx(profile.predict(STRANGE[9]).gains[1] + 0.1)
    two = again.with_kind("00000001", again.features.transform(["tralala dumdidum hoppsassa"] * 3), np.zeros(3), 0.1)
    assert two.recurring is not None and two.recurring.names == (KIND, "00000001")
    assert two.without_kind(KIND).without_kind("00000001").to_bytes() == profile.to_bytes()
    with pytest.raises(RegistryError, match=r"no recurring kind '00000002'; it has: 3f9a01c2, 00000001"):
        two.without_kind("00000002")


def test_a_new_or_replaced_adapter_is_not_judged(profile: RoutingProfile, gains: list[float]) -> None:
    grown, plain = judged(profile, *gains), profile.predict(STRANGE[9]).gains
    scores = profile.trait_scores[1]
    added = grown.with_adapter("new", scores).predict(STRANGE[9])
    assert added.gains[1] == pytest.approx(plain[1] + 1.5)
    replaced = grown.with_adapter(profile.adapters[1], scores)
    expected = replace(replaced, recurring=None).predict(STRANGE[9]).gains
    np.testing.assert_allclose(replaced.predict(STRANGE[9]).gains - expected, [0, 0, -0.2])
