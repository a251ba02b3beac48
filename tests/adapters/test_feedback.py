"""How decisions turned out is kept once, in numbers."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError
from traitroute.adapters import ConflictError, Feedback, Registry, RegistryError


def decision(token: str = "t1", **changes: object) -> Feedback:
    fields = {"token": token, "adapter": "math", "predicted_gain": 0.25, "profile_version": 3}
    return Feedback.model_validate(fields | changes)


def test_a_decision_comes_back_with_its_reward(registry: Registry) -> None:
    given = decision()
    registry.put_feedback(given, decision("t2", adapter=None, profile_version=None))
    assert registry.find_feedback("t1") == given
    assert registry.feedback() == []
    told = registry.reward_feedback("t1", 0.5)
    assert told.reward == 0.5
    assert told.rewarded_at is not None
    assert registry.feedback() == [told]


def test_a_reward_is_told_once(registry: Registry) -> None:
    registry.put_feedback(decision())
    registry.reward_feedback("t1", 0)
    with pytest.raises(ConflictError, match="told before"):
        registry.reward_feedback("t1", 1)
    assert [each.reward for each in registry.feedback()] == [0]


def test_an_unknown_decision_has_no_reward(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no decision with this token"):
        registry.reward_feedback("t9", 1)
    assert registry.find_feedback("t9") is None


@pytest.mark.parametrize("reward", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_reward_outside_its_range_is_refused(registry: Registry, reward: float) -> None:
    registry.put_feedback(decision())
    with pytest.raises(RegistryError, match="from 0 to 1"):
        registry.reward_feedback("t1", reward)
    assert registry.feedback() == []


def test_a_token_is_taken_once_and_all_or_nothing_is_kept(registry: Registry) -> None:
    registry.put_feedback(decision())
    with pytest.raises(ConflictError, match="token is there already"):
        registry.put_feedback(decision("t2"), decision("t1", adapter=None))
    assert registry.find_feedback("t2") is None


@pytest.mark.parametrize("token", ["", "two words", "x" * 256, "a\n"])
def test_a_token_holds_no_text(token: str) -> None:
    with pytest.raises(ValidationError):
        decision(token)


def test_old_decisions_can_be_forgotten(registry: Registry) -> None:
    now = datetime.now(UTC)
    registry.put_feedback(decision("old", created_at=now - timedelta(days=9)), decision("new"))
    for token in ("old", "new"):
        registry.reward_feedback(token, 1)
    assert [f.token for f in registry.feedback(since=now - timedelta(days=1))] == ["new"]
    assert registry.forget_feedback(before=now - timedelta(days=1)) == 1
    assert [f.token for f in registry.feedback()] == ["new"]


def test_feedback_is_no_new_revision(registry: Registry) -> None:
    before = registry.revision()
    registry.put_feedback(decision())
    registry.reward_feedback("t1", 1)
    assert registry.revision() == before
