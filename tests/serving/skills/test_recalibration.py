"""What feedback may change of predicted gains, and what it may not."""

import random
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traitroute.adapters import Feedback, Registry
from traitroute.router import Corrections, Router, RoutingProfile
from traitroute.serving.profile_snapshot import DecisionToken
from traitroute.serving.skills.recalibration import Correction, Rewarded, learn, read_rewards

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
KINDS = ("cooking", "garden", "space", "law")


def digest_of(adapter: str) -> str:
    """As the registry's adapters have it."""
    return sha256(adapter.encode()).hexdigest()


@pytest.fixture
def profile(registry: Registry) -> RoutingProfile:
    return RoutingProfile.from_bytes(registry.profile(1).data)


def rewarded(
    adapter: str | None, count: int, mean: float, expected: float, key: str | None = None, **more: Any
) -> list[Rewarded]:
    """Decisions on cooking, of which a share of `mean` turned out well, as one key says."""
    more = {"kind": "cooking", **more}
    return [Rewarded(adapter, expected, float(i < mean * count), key, **more) for i in range(count)]


def learnt(profile: RoutingProfile, *parts: list[Rewarded], **options: Any) -> dict[str | None, Correction]:
    """What is learnt of chef, by kind."""
    found = learn([each for part in parts for each in part], profile, **{"bound": 0.2, **options})
    return {each.kind: each for each in found.cells if each.adapter == "chef"}


def everywhere(count: int = 200) -> list[Rewarded]:
    """Decisions for base on all kinds that turned out as measured."""
    return [each for kind in KINDS for each in rewarded(None, count, 0.3, 0.3, kind=kind)]


def test_what_an_adapter_does_worse_on_one_kind_is_corrected_there(profile: RoutingProfile) -> None:
    well = rewarded("chef", 400, 0.6, 0.6, kind="space")
    found = learnt(profile, rewarded("chef", 400, 0.4, 0.6), well, everywhere(400))
    assert found["cooking"].difference == pytest.approx(-0.2, abs=0.01)
    assert -0.2 < found["cooking"].correction < -0.1
    assert abs(found["space"].correction) < 0.03


def test_what_it_does_worse_on_all_kinds_holds_for_those_it_has_not_answered(profile: RoutingProfile) -> None:
    worse = [rewarded("chef", 400, 0.4, 0.6, kind=kind) for kind in KINDS]
    known = learn([each for part in [*worse, everywhere(400)] for each in part], profile, bound=0.2).corrections
    assert known is not None
    assert known.of(np.zeros(len(KINDS)))[profile.adapters.index("chef")] < -0.05


def test_what_shifts_base_alike_is_no_fault_of_the_adapter(profile: RoutingProfile) -> None:
    found = learnt(profile, rewarded("chef", 1000, 0.9, 0.6), rewarded(None, 1000, 0.6, 0.3))
    assert abs(found["cooking"].correction) < 0.01


def test_where_base_is_not_heard_of_less_is_learnt_and_that_is_said(profile: RoutingProfile) -> None:
    chef, elsewhere = rewarded("chef", 400, 0.4, 0.6), rewarded(None, 400, 0.3, 0.3, kind="law")
    without = learnt(profile, chef, elsewhere)["cooking"]
    beside = learnt(profile, chef, elsewhere, rewarded(None, 400, 0.3, 0.3))["cooking"]
    assert (without.of_base, beside.of_base) == (0, 400)
    assert beside.correction < without.correction < 0
    assert without.error is not None and without.error > 0.15


def test_a_control_group_stands_for_what_base_would_have_answered(profile: RoutingProfile) -> None:
    # The profile sends to base what base does well: only the control group has answered the rest.
    easy, hard = rewarded(None, 500, 0.9, 0.5), rewarded(None, 20, 0.1, 0.5, propensity=0.02)
    found = learnt(profile, rewarded("chef", 500, 0.4, 0.6), easy, hard)["cooking"]
    even = learnt(profile, rewarded("chef", 500, 0.4, 0.6), easy, [replace(each, propensity=1.0) for each in hard])
    assert found.correction > even["cooking"].correction


def test_outcomes_of_one_conversation_count_as_one(profile: RoutingProfile) -> None:
    talk = rewarded("chef", 300, 0.0, 0.6, conversation="one")
    assert learnt(profile, talk, everywhere())["cooking"].difference is None
    apart = [replace(each, conversation=str(i)) for i, each in enumerate(talk)]
    assert learnt(profile, apart, everywhere())["cooking"].correction < -0.1


def test_few_decisions_change_nothing(profile: RoutingProfile) -> None:
    many = rewarded(None, 100, 0.3, 0.3)
    assert learnt(profile, rewarded("chef", 29, 0.0, 0.6), many)["cooking"].correction == 0
    assert learnt(profile, rewarded("chef", 100, 0.0, 0.6), many[:29])["cooking"].correction == 0
    assert learnt(profile, rewarded("chef", 30, 0.0, 0.6), many)["cooking"].correction < 0


def test_an_adapter_or_kind_of_another_profile_counts_for_nothing(profile: RoutingProfile) -> None:
    assert learn(rewarded("gone", 100, 0.0, 0.6) + everywhere(), profile).cells == ()
    assert set(learnt(profile, rewarded("chef", 100, 0.0, 0.6, kind="gone"), everywhere())) == {None}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(
    reports=st.lists(
        st.tuples(
            st.sampled_from(["chef", None]),
            st.floats(-1, 2),
            st.floats(0, 1),
            st.sampled_from(["a", "b", "c", None]),
            st.sampled_from([*KINDS, None]),
            st.floats(0.001, 1),
            st.sampled_from(["", "x", "y"]),
        ),
        max_size=120,
    ),
    bound=st.floats(0.01, 1),
)
def test_no_feedback_pushes_an_adapter_beyond_the_bound(
    profile: RoutingProfile, reports: list[tuple[Any, ...]], bound: float
) -> None:
    for each in learn([Rewarded(*row) for row in reports], profile, bound=bound, least=2).cells:
        assert abs(each.correction) <= bound + 1e-9


@pytest.mark.parametrize("honest", [1, 2, 4])
@pytest.mark.parametrize("lie", [0.0, 1.0])
def test_one_keys_flood_of_lies_does_not_decide(profile: RoutingProfile, honest: int, lie: float) -> None:
    truth = [
        each
        for key in range(honest)
        for each in (*rewarded("chef", 30, 0.6, 0.6, f"key {key}"), *rewarded(None, 100, 0.3, 0.3, f"key {key}"))
    ]
    flood = rewarded("chef", 5_000, lie, 0.6, "liar")
    assert learnt(profile, flood)["cooking"].correction == 0
    alone = learnt(profile, flood, rewarded(None, 100, 0.3, 0.3))["cooking"].correction
    assert abs(alone) > 0.1
    assert abs(learnt(profile, flood, truth)["cooking"].correction) < 0.07


def test_a_key_that_lies_of_base_harms_no_adapter(profile: RoutingProfile) -> None:
    truth = [
        each for key in "abc" for each in (*rewarded("chef", 50, 0.6, 0.6, key), *rewarded(None, 50, 0.3, 0.3, key))
    ]
    lies = rewarded(None, 5_000, 1.0, 0.3, "liar")
    assert abs(learnt(profile, truth, lies)["cooking"].correction) < 0.07


def test_a_drift_that_all_keys_see_is_learnt(profile: RoutingProfile) -> None:
    seen = [
        each for key in "abcde" for each in (*rewarded("chef", 100, 0.2, 0.6, key), *rewarded(None, 100, 0.3, 0.3, key))
    ]
    assert learnt(profile, seen)["cooking"].correction < -0.15


def put(registry: Registry, adapter: str | None, version: int | None, **more: Any) -> None:
    weights = "" if adapter is None else more.pop("weights", None) or digest_of(adapter)
    token = replace(DecisionToken.of(adapter, 0.5, 0.2, version or 0, weights), kind="cooking").sign(b"key")
    gain = 0.0 if adapter is None else 0.5
    registry.put_feedback(
        Feedback(
            token=token,
            adapter=adapter,
            predicted_gain=gain,
            profile_version=version,
            reward=1.0,
            **more,
        )
    )


def test_only_feedback_that_the_newest_profile_stands_for_is_read(registry: Registry) -> None:
    old = registry.profile(1)
    put(registry, "chef", 1)
    put(registry, "gone", 1)
    put(registry, "chef", 1, weights="f" * 64)
    [read] = read_rewards(registry, LONG_AGO)
    assert (read.adapter, read.expected) == ("chef", pytest.approx(0.7))
    profile = RoutingProfile.from_bytes(old.data)
    known = Corrections.none(len(profile.adapters), len(profile.tasks), 0.2)
    known.general[profile.adapters.index("chef")] = -0.1
    corrected = replace(profile, corrections=known)
    registry.put_profile(corrected.to_bytes(), old.summary, origin="recalibration", parent=1)
    put(registry, "chef", 2)
    assert [each.expected for each in read_rewards(registry, LONG_AGO)] == pytest.approx([0.7, 0.8])
    registry.put_profile(old.data, old.summary)
    assert read_rewards(registry, LONG_AGO) == []


def test_feedback_without_a_token_of_ours_is_passed_over(registry: Registry) -> None:
    registry.put_feedback(Feedback(token="mine", adapter=None, predicted_gain=0, profile_version=1, reward=1))
    assert read_rewards(registry, LONG_AGO) == []


@pytest.mark.slow
def test_feedback_over_http_ends_in_another_choice(server: Any, registry: Registry, text_of: Any) -> None:
    draw = random.Random(0)
    for _ in range(40):
        for task, share in (("cooking", 0.1), ("law", 0.9)):
            decision = server.select(text_of(task))["decision"]
            told = {"decision": decision, "reward": float(draw.random() < share)}
            assert server.post("/v1/feedback", told).status_code == 200
    profile = RoutingProfile.from_bytes(registry.profile(1).data)
    found = learn(read_rewards(registry, LONG_AGO), profile)
    [cell] = [each for each in found.cells if each.kind == "cooking"]
    assert cell.adapter == "chef"
    assert -0.2 <= cell.correction < 0
    corrected = Router(replace(profile, corrections=found.corrections))
    gains = [{a.adapter: a.gain for a in r.route(text_of("cooking")).ranking} for r in (Router(profile), corrected)]
    assert gains[1]["chef"] < gains[0]["chef"] - 0.02
