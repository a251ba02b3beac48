"""The control group over a real registry: servers agree, also over a new profile, and tokens say who was held back."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from traitroute.adapters import Registry
from traitroute.serving.profile_snapshot import DecisionToken

QUESTIONS = [f"simmer the onion soup with butter for {n} minutes" for n in range(24)]


@pytest.fixture
def held_back(registry: Registry) -> Callable[[Any], Any]:
    """Open a server of the registry with half of the conversations held back."""

    def opened(server: Any) -> Any:
        started = type(server)(registry)
        started.state.experiment = type(started.state.experiment)(holdback=0.5)
        started.state.budget_s = 10.0
        return started

    return opened


def tokens(server: Any) -> list[DecisionToken]:
    answers = [server.route(question) for question in QUESTIONS]
    return [DecisionToken.read(each.headers["x-traitroute-decision-token"]) for each in answers]


def test_servers_agree_and_nobody_changes_sides_over_a_new_profile(
    server: Any, held_back: Callable[[Any], Any], registry: Registry
) -> None:
    one = held_back(server)
    before = tokens(one)
    old = registry.profile(1)
    registry.put_profile(old.data + b"", old.summary)
    one.refresh()
    after, other = tokens(one), tokens(held_back(server))
    assert {each.version for each in before} == {1}
    assert {each.version for each in (*after, *other)} == {2}
    sides = [[(each.arm, each.conversation) for each in answers] for answers in (before, after, other)]
    assert sides[0] == sides[1] == sides[2]
    assert {arm for arm, _ in sides[0]} == {"auto", "control"}


def test_a_token_tells_whom_the_policy_would_have_had(server: Any, held_back: Callable[[Any], Any]) -> None:
    for token in tokens(held_back(server)):
        answered = None if token.arm == "control" else "chef"
        assert (token.adapter, token.policy, token.propensity) == (answered, "chef", 0.5)
        assert token.kind == "cooking"
        assert len(token.conversation) == 11


def test_a_propensity_that_was_tampered_with_is_refused(
    server: Any, held_back: Callable[[Any], Any], registry: Registry
) -> None:
    opened = held_back(server)
    token = opened.route(QUESTIONS[0]).headers["x-traitroute-decision-token"]
    forged = replace(DecisionToken.read(token), propensity=0.001).sign(b"a guess")
    for altered in (forged, f"{forged.partition('.')[0]}.{token.partition('.')[2]}"):
        refused = opened.post("/v1/feedback", {"decision": altered, "reward": 1})
        assert refused.status_code == 404
    assert opened.post("/v1/feedback", {"decision": token, "reward": 1}).status_code == 200
    assert len(registry.feedback()) == 1


def test_a_selection_is_never_held_back(server: Any, held_back: Callable[[Any], Any]) -> None:
    opened = held_back(server)
    for question in QUESTIONS:
        selection = opened.select(question)
        assert selection["choice"] == "chef"
        token = DecisionToken.read(selection["decision"])
        assert (token.arm, token.propensity, token.conversation) == ("auto", 1.0, "")
