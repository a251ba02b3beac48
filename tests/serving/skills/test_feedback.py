"""How a decision turned out: kept once, without text, and only for decisions that were made."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from traitroute.adapters import Feedback, FeedbackSource, InputError, Registry
from traitroute.serving.http.keys import ApiKeys, KeyCheck
from traitroute.serving.profile_snapshot import DecisionToken, TokenError
from traitroute.serving.skills.feedback import FeedbackLimits
from traitroute.serving.skills.recalibration import read_rewards

Text = Callable[[str], str]


def test_feedback_on_a_selection_is_kept_without_its_text(server: Any, registry: Registry, text_of: Text) -> None:
    text = text_of("cooking")
    decision = server.select(text)["decision"]
    response = server.post("/v1/feedback", {"decision": decision, "reward": 0.75})
    assert response.json() == {"skill": "chef", "profile_version": 1, "reward": 0.75, "source": "user"}
    [kept] = registry.feedback()
    assert (kept.adapter, kept.reward, kept.profile_version) == ("chef", 0.75, 1)
    assert kept.predicted_gain == pytest.approx(server.select(text)["gain"], abs=1e-4)
    stored = b"".join(f.read_bytes() for f in registry.path.parent.glob("registry.db*"))
    assert text.encode() not in stored


def test_feedback_on_a_routed_answer_takes_the_token_of_its_header(
    server: Any, registry: Registry, text_of: Text
) -> None:
    routed = server.route(text_of("law"))
    token = routed.headers["x-traitroute-decision-token"]
    assert server.post("/v1/feedback", {"decision": token, "reward": 1}).json()["skill"] == "base"
    [kept] = registry.feedback()
    assert kept.adapter is None


def test_feedback_is_kept_in_postgresql_too(server: Any, postgresql: Registry) -> None:
    there = type(server)(postgresql)
    told = {"decision": there.select("simmer the onion soup with butter")["decision"], "reward": 1}
    assert [there.post("/v1/feedback", told).status_code for _ in range(2)] == [200, 409]
    [kept] = postgresql.feedback()
    assert kept.adapter == "chef"


def test_each_decision_is_told_of_once(server: Any, registry: Registry) -> None:
    decision = server.select("simmer the soup")["decision"]
    assert server.post("/v1/feedback", {"decision": decision, "reward": 1}).status_code == 200
    again = server.post("/v1/feedback", {"decision": decision, "reward": 0})
    assert again.status_code == 409
    assert [kept.reward for kept in registry.feedback()] == [1]


def test_another_server_of_the_registry_takes_feedback_after_a_new_profile(server: Any, registry: Registry) -> None:
    decision = server.select("simmer the soup")["decision"]
    old = registry.profile(1)
    registry.put_profile(old.data + b"", old.summary)
    other = type(server)(registry)
    response = other.post("/v1/feedback", {"decision": decision, "reward": 1})
    assert response.json()["profile_version"] == 1


def test_each_source_is_heard_once(server: Any, registry: Registry) -> None:
    decision = server.select("simmer the soup")["decision"]
    for source, reward in (("user", 1), ("checker", 0), ("judge", 0.5)):
        told = {"decision": decision, "reward": reward, "source": source}
        assert [server.post("/v1/feedback", told).status_code for _ in range(2)] == [200, 409]
    assert {(kept.source, kept.reward) for kept in registry.feedback(source=None)} == {
        ("user", 1),
        ("checker", 0),
        ("judge", 0.5),
    }
    [read] = read_rewards(registry, registry.adapter("chef").created_at, FeedbackSource.CHECKER)
    assert read.reward == 0


@pytest.mark.parametrize(("thumbs", "reward"), [("up", 1), ("down", 0)])
def test_thumbs_are_rewards(server: Any, registry: Registry, thumbs: str, reward: float) -> None:
    decision = server.select("simmer the soup")["decision"]
    assert server.post("/v1/feedback", {"decision": decision, "thumbs": thumbs}).json()["reward"] == reward
    [kept] = registry.feedback()
    assert kept.reward == reward


def test_the_better_of_two_answers_is_kept_as_a_comparison(server: Any, registry: Registry) -> None:
    better, worse = (server.select(text)["decision"] for text in ("simmer the soup", "a clause on lease and damages"))
    response = server.post("/v1/feedback", {"decision": better, "better_than": worse})
    assert response.json() == {"skill": "chef", "profile_version": 1, "reward": 1, "source": "comparison"}
    kept = {each.token: each.reward for each in registry.feedback(source=FeedbackSource.COMPARISON)}
    assert kept == {better: 1, worse: 0}
    assert registry.feedback() == []
    third = server.select("bake bread")["decision"]
    assert server.post("/v1/feedback", {"decision": third, "better_than": worse}).status_code == 409
    assert len(registry.feedback(source=None)) == 2
    forged = server.post("/v1/feedback", {"decision": third, "better_than": made(server)[:-2] + "xx"})
    assert (forged.status_code, forged.json()["error"]["param"]) == (404, "better_than")


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"reward": 1, "thumbs": "up"},
        {"thumbs": "sideways"},
        {"thumbs": None},
        {"better_than": ""},
        {"better_than": 1},
        {"better_than": "itself"},
        {"better_than": "x.y", "source": "judge"},
        {"reward": 1, "source": "format"},
        {"reward": 1, "source": "answered"},
        {"reward": 1, "source": "comparison"},
        {"reward": 1, "source": "me"},
    ],
)
def test_an_outcome_is_given_in_one_way_by_one_of_the_sources(
    server: Any, registry: Registry, told: dict[str, Any]
) -> None:
    decision = server.select("simmer the soup")["decision"]
    told = {name: decision if value == "itself" else value for name, value in told.items()}
    assert server.post("/v1/feedback", {"decision": decision, **told}).status_code == 400
    assert registry.feedback(source=None) == []


@pytest.mark.parametrize("reward", [-0.1, 1.1, "1", None, True, [1]])
def test_a_reward_is_a_number_from_0_to_1(server: Any, registry: Registry, reward: Any) -> None:
    decision = server.select("simmer the soup")["decision"]
    refused = server.post("/v1/feedback", {"decision": decision, "reward": reward})
    assert refused.status_code == 400
    assert registry.feedback() == []


def test_nan_is_no_reward(server: Any, registry: Registry) -> None:
    decision = server.select("simmer the soup")["decision"]
    body = f'{{"decision": "{decision}", "reward": NaN}}'.encode()
    assert server.post("/v1/feedback", body).status_code == 400
    assert registry.feedback() == []


def test_a_decision_that_no_server_made_is_refused(server: Any, registry: Registry) -> None:
    forged = DecisionToken("chef", 0.5, 0.2, 1).sign(b"another key")
    unknown = DecisionToken("chef", 0.5, 0.2, 99).sign(b"another key")
    real = server.select("simmer the soup")["decision"]
    payload, _, signature = real.partition(".")
    altered = f"{payload[:-3]}AAA.{signature}"
    for token in (forged, unknown, altered, payload, f"{real}=", f"{real}.", "e30.e30", "x", "é"):
        response = server.post("/v1/feedback", {"decision": token, "reward": 1})
        assert response.status_code == 404, token
    assert registry.feedback() == []


def test_other_spellings_of_a_token_are_refused() -> None:
    token = DecisionToken("chef", 0.5, None, 1).sign(b"key")
    assert DecisionToken.verify(token, b"key").adapter == "chef"
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(token[-1])
    twin = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last ^ 1]
    for other in (token[:-1] + twin, token + "==", token.replace(".", "==."), token + "\n"):
        with pytest.raises(TokenError):
            DecisionToken.verify(other, b"key")


def test_where_the_registry_cannot_be_written_the_server_says_so(server: Any, registry: Registry) -> None:
    decision = server.select("simmer the soup")["decision"]
    registry.path.rename(registry.path.with_name("gone.db"))
    response = server.post("/v1/feedback", {"decision": decision, "reward": 1})
    assert response.status_code == 503
    assert str(registry.path) not in response.text


DAY_S = 24 * 3600


def made(server: Any, *, ago: float = 0.0, adapter: str = "chef", digest: str = "") -> str:
    """A token that a server of the registry made so many seconds ago, by its own clock."""
    snapshot = server.state.snapshot.skills
    weights = (digest or snapshot.adapters[adapter].weights_digest)[:16]
    token = DecisionToken(adapter, 0.5, 0.2, 1, weights, int(time.time() - ago))
    return token.sign(snapshot.key)


def signed(content: Any, key: bytes) -> str:
    """A token of any content."""
    payload = json.dumps(content, separators=(",", ":")).encode()
    signature = hmac.digest(key, payload, hashlib.sha256)[:16]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (payload, signature))


def tell(server: Any, token: str, reward: float = 0.0, key: str = "") -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    told = {"decision": token, "reward": reward}
    return server.post("/v1/feedback", told, headers=headers)


@pytest.mark.parametrize("ago", [0, 6.9 * DAY_S, 7 * DAY_S + 200, -200])
def test_feedback_is_taken_for_a_week_by_clocks_that_may_differ(server: Any, registry: Registry, ago: float) -> None:
    assert tell(server, made(server, ago=ago)).status_code == 200
    [kept] = registry.feedback()
    assert kept.created_at.timestamp() == pytest.approx(time.time() - ago, abs=30)


@pytest.mark.parametrize(
    ("ago", "status", "reason"),
    [
        (7 * DAY_S + 400, 410, "was made 7.0 days ago, and feedback is taken for 7 days"),
        (400 * DAY_S, 410, "was made 400.0 days ago"),
        (-400, 400, "set the clocks of this registry's servers"),
    ],
)
def test_a_decision_too_old_or_yet_to_come_is_refused_with_the_reason(
    server: Any, registry: Registry, ago: float, status: int, reason: str
) -> None:
    refused = tell(server, made(server, ago=ago))
    assert refused.status_code == status
    assert reason in refused.json()["error"]["message"]
    assert registry.feedback() == []


def test_hoarded_tokens_say_nothing_of_new_weights(server: Any, registry: Registry) -> None:
    hoarded = [made(server) for _ in range(3)]
    assert tell(server, hoarded[0]).status_code == 200
    chef = registry.adapter("chef")
    registry.add_adapter(chef.model_copy(update={"weights_digest": "b" * 64}), replace=True)
    for refresh in (False, True):
        if refresh:
            server.refresh()
        refused = tell(server, hoarded[1])
        assert refused.status_code == 410
        assert "has other weights since this decision" in refused.json()["error"]["message"]
    assert tell(server, made(server)).status_code == 200
    [read] = read_rewards(registry, chef.created_at)
    assert read.adapter == "chef"
    registry.remove_adapter("chef")
    assert "was removed since" in tell(server, hoarded[2]).json()["error"]["message"]


def test_tokens_of_the_first_format_are_refused_with_the_reason(server: Any) -> None:
    content = {"adapter": "chef", "gain": 0.5, "level": 0.2, "version": 1, "id": "abc"}
    refused = tell(server, signed(content, server.state.snapshot.skills.key))
    assert refused.status_code == 410
    assert "made by an older version of TraitRoute" in refused.json()["error"]["message"]


def test_a_token_of_the_second_format_is_taken_still(server: Any, registry: Registry) -> None:
    snapshot = server.state.snapshot.skills
    weights = snapshot.adapters["chef"].weights_digest[:16]
    token = signed([2, "chef", 0.5, 0.2, 1, weights, int(time.time()), "abc"], snapshot.key)
    assert tell(server, token, 1.0).status_code == 200
    read = DecisionToken.read(token)
    assert (read.propensity, read.policy, read.arm, read.kind, read.conversation) == (1.0, "chef", "auto", None, "")
    [kept] = registry.feedback()
    assert kept.adapter == "chef"


def test_a_token_says_how_the_decision_was_drawn() -> None:
    drawn = DecisionToken(None, 0.0, 0.2, 1, propensity=0.02, policy="chef", arm="control", kind="k", conversation="c")
    assert DecisionToken.verify(drawn.sign(b"key"), b"key") == drawn
    followed = DecisionToken("chef", 0.5, 0.2, 1, kind="k", conversation="c")
    assert followed.policy == "chef"
    assert DecisionToken.verify(followed.sign(b"key"), b"key") == followed


@pytest.mark.parametrize("wrong", [{8: 0}, {8: 1.5}, {8: None}, {10: "other"}, {11: 3}, {12: None}, {0: 4}])
def test_a_token_of_any_other_form_is_refused_though_it_is_signed(server: Any, wrong: dict[int, Any]) -> None:
    fields = [3, "chef", 0.5, 0.2, 1, None, int(time.time()), "abc", 0.9, None, "auto", "cooking", "abc"]
    for place, value in wrong.items():
        fields[place] = value
    with pytest.raises(TokenError):
        DecisionToken.verify(signed(fields, b"key"), b"key")


def test_a_selection_and_a_routed_answer_say_which_kind_they_are_of(server: Any, text_of: Text) -> None:
    selected = DecisionToken.read(server.select(text_of("cooking"))["decision"])
    assert (selected.kind, selected.policy, selected.propensity, selected.arm) == ("cooking", "chef", 1.0, "auto")
    routed = DecisionToken.read(server.route(text_of("law")).headers["x-traitroute-decision-token"])
    assert (routed.kind, routed.policy, routed.propensity, routed.arm) == ("law", None, 1.0, "auto")


def test_the_longest_token_is_kept(registry: Registry) -> None:
    token = DecisionToken.of("a" * 64, -0.98765, 0.98765, 10**9, "f" * 64)
    drawn = replace(
        token, arm="second", propensity=1.23456e-05, policy="b" * 64, kind="c" * 64, conversation="d" * 11
    ).sign(b"key")
    assert len(drawn) <= 512
    assert DecisionToken.verify(drawn, b"key").gain == -0.9877
    assert Feedback(token=drawn, adapter=None, predicted_gain=0.0).token == drawn


def test_each_key_tells_so_much_an_hour(server: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITROUTE_FEEDBACK_PER_HOUR", "3")
    limited = type(server)(registry)
    limited.app = KeyCheck(limited.app, keys=ApiKeys(["one", "two"]), message="")
    tokens = [made(server) for _ in range(8)]
    assert [tell(limited, token, key="one").status_code for token in tokens[:3]] == [200] * 3
    refused = tell(limited, tokens[3], key="one")
    assert refused.status_code == 429
    assert 3500 < int(refused.headers["retry-after"]) <= 3600
    assert "3 outcomes an hour are taken with one API key" in refused.json()["error"]["message"]
    assert tell(limited, tokens[3], key="two").status_code == 200
    assert len({kept.reporter for kept in registry.feedback()}) == 2
    stored = b"".join(f.read_bytes() for f in registry.path.parent.glob("registry.db*"))
    assert hashlib.sha256(b"one").hexdigest()[:32].encode() not in stored


def test_without_keys_all_that_a_server_hears_is_one_givers(
    server: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAITROUTE_FEEDBACK_PER_HOUR", "2")
    limited = type(server)(registry)
    statuses = [tell(limited, made(server), key=f"made up {n}").status_code for n in range(3)]
    assert statuses == [200, 200, 429]


def test_a_limit_of_feedback_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FeedbackLimits.from_environment() == FeedbackLimits(days=7, hourly=1000)
    for variable in ("TRAITROUTE_FEEDBACK_DAYS", "TRAITROUTE_FEEDBACK_PER_HOUR"):
        for wrong in ("0", "-1", "many", "nan", "1e30"):
            monkeypatch.setenv(variable, wrong)
            with pytest.raises(InputError, match=variable):
                FeedbackLimits.from_environment()
        monkeypatch.delenv(variable)
