"""What feedback may change of predicted gains, and what it may not."""

import random
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitroute.adapters import Feedback, Registry
from traitroute.router import Router, RoutingProfile
from traitroute.serving.profile_snapshot import DecisionToken
from traitroute.serving.skills.recalibration import Correction, Rewarded, corrections, read_rewards


def digest_of(adapter: str) -> str:
    """As the registry's adapters have it."""
    return sha256(adapter.encode()).hexdigest()


LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def rewarded(adapter: str | None, count: int, mean: float, expected: float, giver: str | None = None) -> list[Rewarded]:
    """Decisions of which a share of `mean` turned out well, as one key tells."""
    return [Rewarded(adapter, expected, float(i < mean * count), giver) for i in range(count)]


def learnt(*parts: list[Rewarded], **options: Any) -> Correction:
    [found] = corrections([each for part in parts for each in part], **options)
    return found


def test_an_adapter_that_does_worse_than_predicted_is_corrected_down() -> None:
    found = learnt(rewarded("chef", 4000, 0.40, 0.6), rewarded(None, 4000, 0.3, 0.3))
    assert found.difference == pytest.approx(-0.20)
    assert -0.05 < found.correction < -0.04


def test_what_may_be_the_assumptions_fault_is_tolerated() -> None:
    found = learnt(rewarded("chef", 4000, 0.46, 0.6), rewarded(None, 4000, 0.3, 0.3))
    assert (found.difference, found.correction) == (pytest.approx(-0.14), 0)


def test_what_shifts_base_alike_is_no_fault_of_the_adapter() -> None:
    found = learnt(rewarded("chef", 1000, 0.9, 0.6), rewarded(None, 1000, 0.6, 0.3))
    assert found.correction == pytest.approx(0)


def test_few_decisions_change_nothing() -> None:
    many = rewarded(None, 100, 0.3, 0.3)
    assert learnt(rewarded("chef", 29, 0.0, 0.6), many).correction == 0
    assert learnt(rewarded("chef", 100, 0.0, 0.6), many[:29]).correction == 0
    assert learnt(rewarded("chef", 30, 0.0, 0.6), many).correction < 0


@given(
    told=st.lists(
        st.tuples(
            st.sampled_from(["chef", None]),
            st.floats(-1, 2),
            st.floats(0, 1),
            st.sampled_from(["a", "b", "c", None]),
        ),
        max_size=120,
    ),
    bound=st.floats(0.01, 1),
)
def test_no_feedback_pushes_an_adapter_beyond_the_bound(
    told: list[tuple[str | None, float, float, str | None]], bound: float
) -> None:
    for each in corrections([Rewarded(*row) for row in told], bound=bound, least=2):
        assert abs(each.correction) <= bound


def test_unanimous_lies_stop_at_the_bound() -> None:
    found = learnt(rewarded("chef", 10_000, 0.0, 0.9), rewarded(None, 10_000, 1.0, 0.1))
    assert found.correction == -0.1


def test_keys_that_agree_count_by_how_much_they_told() -> None:
    base = rewarded(None, 400, 0.3, 0.3)
    alone = learnt(rewarded("chef", 400, 0.3, 0.6, "a"), base)
    shared = learnt(rewarded("chef", 360, 0.3, 0.6, "a"), rewarded("chef", 40, 0.3, 0.6, "b"), base)
    assert alone.correction < -0.04
    assert shared.correction == pytest.approx(alone.correction, abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize("honest", [1, 2, 4, 9])
@pytest.mark.parametrize("told_by_each", [5, 30])
def test_one_keys_flood_of_lies_does_not_decide(honest: int, told_by_each: int) -> None:
    truth = [
        each
        for key in range(honest)
        for each in (
            *rewarded("chef", told_by_each, 0.6, 0.6, f"key {key}"),
            *rewarded(None, 100, 0.3, 0.3, f"key {key}"),
        )
    ]
    for lie, told in ((-1, 0.0), (+1, 1.0)):
        flood = rewarded("chef", 20_000, told, 0.6, "liar")
        assert abs(learnt(flood).correction) == 0
        alone = learnt(flood, rewarded(None, 100, 0.3, 0.3)).correction
        assert lie * alone > 0.09
        assert abs(learnt(flood, truth).correction) < 0.02


def test_a_key_that_lies_of_base_harms_no_adapter() -> None:
    truth = [
        each
        for key in "abc"
        for each in (
            *rewarded("chef", 50, 0.6, 0.6, key),
            *rewarded(None, 50, 0.3, 0.3, key),
        )
    ]
    assert abs(learnt(truth, rewarded(None, 20_000, 1.0, 0.3, "liar")).correction) < 0.02


def test_a_drift_that_all_keys_see_is_learnt() -> None:
    seen = [
        each
        for key in "abcde"
        for each in (
            *rewarded("chef", 100, 0.2, 0.6, key),
            *rewarded(None, 100, 0.3, 0.3, key),
        )
    ]
    assert learnt(seen).correction < -0.08


def put(registry: Registry, adapter: str | None, version: int | None, **more: Any) -> None:
    weights = "" if adapter is None else more.pop("weights", None) or digest_of(adapter)
    token = DecisionToken.of(adapter, 0.5, 0.2, version or 0, weights).sign(b"key")
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
    corrected = RoutingProfile(**{**vars(profile), "corrections": {"chef": -0.1}})
    registry.put_profile(corrected.to_bytes(), old.summary, origin="recalibration", parent=1)
    put(registry, "chef", 2)
    assert [each.expected for each in read_rewards(registry, LONG_AGO)] == pytest.approx([0.7, 0.8])
    registry.put_profile(old.data, old.summary)
    assert read_rewards(registry, LONG_AGO) == []


def test_feedback_without_a_token_of_ours_is_passed_over(registry: Registry) -> None:
    registry.put_feedback(Feedback(token="mine", adapter=None, predicted_gain=0, profile_version=1, reward=1))
    assert read_rewards(registry, LONG_AGO) == []


def test_a_correction_moves_one_adapter_and_is_told(registry: Registry, text_of: Any) -> None:
    profile = RoutingProfile.from_bytes(registry.profile(1).data)
    corrected = RoutingProfile(**{**vars(profile), "corrections": {"chef": -0.05}})
    kept = RoutingProfile.from_bytes(corrected.to_bytes())
    before, after = (Router(p).route(text_of("cooking")) for p in (profile, kept))
    gains = {a.adapter: a.gain for a in before.ranking}
    moved = {a.adapter: a.gain - gains[a.adapter] for a in after.ranking}
    assert moved == pytest.approx({"chef": -0.05, "pilot": 0, "idle": 0})
    assert after.contributions["feedback"] == -0.05
    assert sum(after.contributions.values()) == pytest.approx(after.ranking[0].gain)
    assert "feedback" not in before.contributions


@pytest.mark.slow
def test_feedback_over_http_ends_in_another_choice(server: Any, registry: Registry, text_of: Any) -> None:
    draw = random.Random(0)
    for _ in range(40):
        for task, share in (("cooking", 0.1), ("law", 0.9)):
            decision = server.select(text_of(task))["decision"]
            told = {"decision": decision, "reward": float(draw.random() < share)}
            assert server.post("/v1/feedback", told).status_code == 200
    [found] = corrections(read_rewards(registry, LONG_AGO))
    assert found.adapter == "chef"
    assert -0.1 <= found.correction < 0
