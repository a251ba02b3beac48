"""How a decision turned out: kept once, without text, and only for decisions that were made."""

from collections.abc import Callable
from typing import Any

import pytest
from traitroute.adapters import Registry
from traitroute.serving.skills.token import DecisionToken, TokenError

Text = Callable[[str], str]


def test_feedback_on_a_selection_is_kept_without_its_text(
    server: Any, registry: Registry, text_of: Text
) -> None:
    text = text_of("cooking")
    decision = server.select(text)["decision"]
    response = server.post("/v1/feedback", {"decision": decision, "reward": 0.75})
    assert response.json() == {"skill": "chef", "profile_version": 1, "reward": 0.75}
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


def test_another_server_of_the_registry_takes_feedback_after_a_new_profile(
    server: Any, registry: Registry
) -> None:
    decision = server.select("simmer the soup")["decision"]
    old = registry.profile(1)
    registry.put_profile(old.data + b"", old.summary)
    other = type(server)(registry)
    response = other.post("/v1/feedback", {"decision": decision, "reward": 1})
    assert response.json()["profile_version"] == 1


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


def test_where_the_registry_cannot_be_written_the_server_says_so(
    server: Any, registry: Registry
) -> None:
    decision = server.select("simmer the soup")["decision"]
    registry.path.rename(registry.path.with_name("gone.db"))
    response = server.post("/v1/feedback", {"decision": decision, "reward": 1})
    assert response.status_code == 503
    assert str(registry.path) not in response.text
