"""How decisions turned out is recorded once, in numbers."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from pydantic import ValidationError
from traitroute.adapters import ConflictError, Feedback, FeedbackSource, Registry, RegistryError, TooManyError


def decision(token: str = "t1", **changes: object) -> Feedback:
    fields = {"token": token, "adapter": "math", "predicted_gain": 0.25, "profile_version": 3}
    return Feedback.model_validate(fields | changes)


def test_a_decision_comes_back_with_its_reward(registry: Registry) -> None:
    given = decision()
    registry.put_feedback(given, decision("t2", adapter=None, profile_version=None))
    assert registry.find_feedback("t1") == given
    assert registry.feedback() == []
    rewarded = registry.reward_feedback("t1", 0.5)
    assert rewarded.reward == 0.5
    assert rewarded.rewarded_at is not None
    assert registry.feedback() == [rewarded]


def test_a_reward_is_reported_once(registry: Registry) -> None:
    registry.put_feedback(decision())
    registry.reward_feedback("t1", 0)
    with pytest.raises(ConflictError, match="reported before"):
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


def test_each_source_reports_once_on_a_decision(registry: Registry) -> None:
    registry.put_feedback(decision(reward=1), decision(source="checker", reward=0))
    for source in FeedbackSource.USER, FeedbackSource.CHECKER:
        with pytest.raises(ConflictError):
            registry.put_feedback(decision(source=source, reward=0.5))
    assert [each.reward for each in registry.feedback()] == [1]
    assert [each.reward for each in registry.feedback(source=FeedbackSource.CHECKER)] == [0]
    assert len(registry.feedback(source=None)) == 2
    assert registry.find_feedback("t1", source=FeedbackSource.JUDGE) is None


@pytest.mark.parametrize("token", ["", "two words", "x" * 513, "a\n"])
def test_a_token_holds_no_text(token: str) -> None:
    with pytest.raises(ValidationError):
        decision(token)


def test_decisions_of_one_second_come_in_one_order(registry: Registry) -> None:
    second = datetime.now(UTC).replace(microsecond=0)
    for token in ("t3", "t1", "t4", "t2"):
        registry.put_feedback(decision(token, created_at=second, reward=1))
    assert [f.token for f in registry.feedback()] == ["t1", "t2", "t3", "t4"]
    assert [f.token for f in registry.feedback(newest=2)] == ["t3", "t4"]


def test_old_decisions_can_be_forgotten(registry: Registry) -> None:
    now = datetime.now(UTC)
    registry.put_feedback(decision("old", created_at=now - timedelta(days=9)), decision("new"))
    for token in ("old", "new"):
        registry.reward_feedback(token, 1)
    assert [f.token for f in registry.feedback(since=now - timedelta(days=1))] == ["new"]
    assert registry.forget_feedback(before=now - timedelta(days=1)) == 1
    assert [f.token for f in registry.feedback()] == ["new"]


def test_a_decision_made_in_the_second_asked_for_is_listed(registry: Registry) -> None:
    asked = datetime(2026, 12, 1, 9, 30, 5, 900_000, UTC)
    seconds = {"before": 4, "same": 5, "after": 6}
    made = {token: asked.replace(second=second, microsecond=0) for token, second in seconds.items()}
    registry.put_feedback(*(decision(token, created_at=at, reward=1) for token, at in made.items()))
    assert [f.token for f in registry.feedback(since=asked)] == ["same", "after"]


def test_feedback_is_no_new_revision(registry: Registry) -> None:
    before = registry.revision()
    registry.put_feedback(decision())
    registry.reward_feedback("t1", 1)
    assert registry.revision() == before


def test_a_reporter_has_an_hourly_limit_and_others_go_on(registry: Registry) -> None:
    a, b = registry.reporter(b"a"), registry.reporter(b"b")
    now = datetime.now(UTC)

    def report(token: str, reporter: str, *, ago: float = 0.0) -> None:
        at = now - timedelta(minutes=ago)
        registry.put_feedback(decision(token, reporter=reporter, reward=1, rewarded_at=at, created_at=at), hourly=2)

    report("old", a, ago=61)
    report("t1", a, ago=50)
    report("t2", a)
    with pytest.raises(TooManyError, match="2 outcomes an hour") as refused:
        report("t3", a)
    assert 9 * 60 < refused.value.wait_s <= 10 * 60
    assert registry.find_feedback("t3") is None
    report("t4", b)
    assert {each.token for each in registry.feedback()} == {"old", "t1", "t2", "t4"}


def test_only_a_hash_of_a_key_with_the_registrys_secret_is_stored(registry: Registry) -> None:
    reporter = registry.reporter(b"a secret key")
    registry.put_feedback(decision(reporter=reporter))
    stored = registry.find_feedback("t1")
    assert stored is not None and stored.reporter == reporter == registry.reporter(b"a secret key")
    assert reporter != registry.reporter(b"another key")
    assert reporter != sha256(b"a secret key").hexdigest()[:32]
