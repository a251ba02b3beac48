"""How decisions turned out is kept once, in numbers."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from pydantic import ValidationError
from traitroute.adapters import ConflictError, Feedback, Registry, RegistryError, TooManyError


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


def test_a_giver_tells_so_much_an_hour_and_others_go_on(registry: Registry) -> None:
    a, b = registry.giver(b"a"), registry.giver(b"b")
    now = datetime.now(UTC)

    def tell(token: str, giver: str, *, ago: float = 0.0) -> None:
        told = now - timedelta(minutes=ago)
        registry.put_feedback(decision(token, giver=giver, reward=1, rewarded_at=told, created_at=told), hourly=2)

    tell("old", a, ago=61)
    tell("t1", a, ago=50)
    tell("t2", a)
    with pytest.raises(TooManyError, match="2 outcomes an hour") as refused:
        tell("t3", a)
    assert 9 * 60 < refused.value.wait_s <= 10 * 60
    assert registry.find_feedback("t3") is None
    tell("t4", b)
    assert {each.token for each in registry.feedback()} == {"old", "t1", "t2", "t4"}


def test_of_a_key_nothing_but_a_hash_with_the_registrys_secret_is_kept(registry: Registry) -> None:
    giver = registry.giver(b"a secret key")
    registry.put_feedback(decision(giver=giver))
    kept = registry.find_feedback("t1")
    assert kept is not None and kept.giver == giver == registry.giver(b"a secret key")
    assert giver != registry.giver(b"another key")
    assert giver != sha256(b"a secret key").hexdigest()[:32]
