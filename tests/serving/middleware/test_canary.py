"""A canary answers its share of `auto`, in every process alike, and the answer and its token say so."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from traitroute.adapters import Registry
from traitroute.serving.experiment import Experiment
from traitroute.serving.profile_snapshot import DecisionToken
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

TEXTS = [f"please simmer the onion soup with butter garlic thyme, pot {i}" for i in range(60)]


@pytest.fixture
def trial(registry: Registry, state: ServerState, serve: Callable[[ServerState], Any]) -> Callable[..., Any]:
    """Start one more process of the servers of a registry in which chef gets a share."""

    def started(share: float, holdback: float = 0.0) -> Any:
        registry.set_canary("chef", share)
        snapshot = RegistrySnapshot.read(registry)
        return serve(replace(state, experiment=Experiment(holdback), snapshot=snapshot, budget_s=10.0))

    return started


def answers(server: Any, **more: Any) -> list[dict[str, str]]:
    return [dict(server.chat(text, **more).headers) for text in TEXTS]


def test_some_conversations_are_its_own_and_the_others_whom_auto_would_choose_without_it(
    trial: Callable[..., Any],
) -> None:
    seen = answers(trial(0.4))
    arms = {(each["x-traitroute-adapter"], each["x-traitroute-arm"], each["x-traitroute-canary"]) for each in seen}
    assert arms == {("chef", "canary", "chef;share=0.4;given=1"), ("base", "auto", "chef;share=0.4;given=0")}
    own = [each for each in seen if each["x-traitroute-adapter"] == "chef"]
    assert 12 <= len(own) <= 36
    assert all(each["x-traitroute-reason"].startswith("canary: chef:") for each in own)
    assert [each["x-traitroute-adapter"] for each in answers(trial(0.4))] == [
        each["x-traitroute-adapter"] for each in seen
    ]


def test_the_token_tells_what_was_drawn(trial: Callable[..., Any]) -> None:
    for each in answers(trial(0.4, holdback=0.3)):
        token = DecisionToken.read(each["x-traitroute-decision-token"])
        assert (token.canary, token.share) == ("chef", 0.4)
        assert token.policy == ("chef" if token.given else None)
        assert token.arm in (("canary", "control") if token.given else ("auto", "control"))
        # Given the draw: where base is the policy too, it is sure to answer.
        assert token.propensity == (1.0 if not token.given else 0.3 if token.arm == "control" else 0.7)


def test_a_larger_share_takes_nobody_back_and_all_or_none_draw_nothing(trial: Callable[..., Any]) -> None:
    few, many = (
        {i for i, each in enumerate(answers(trial(share))) if each["x-traitroute-adapter"] == "chef"}
        for share in (0.2, 0.6)
    )
    assert few < many
    for share, name in ((1.0, "chef"), (0.0, "base")):
        seen = answers(trial(share))
        assert {(each["x-traitroute-adapter"], each["x-traitroute-arm"]) for each in seen} == {(name, "auto")}
        assert not any("x-traitroute-canary" in each for each in seen)
        assert {DecisionToken.read(each["x-traitroute-decision-token"]).canary for each in seen} == {None}


def test_a_session_stays_until_the_canary_is_taken_back(registry: Registry, trial: Callable[..., Any]) -> None:
    server = trial(0.9)
    # Who enters is drawn by a key of the registry's own: one in ten sessions does not.
    sessions = ({"x-traitroute-session": str(i)} for i in range(40))
    headers = next(s for s in sessions if server.chat(TEXTS[0], headers=s).headers["x-traitroute-adapter"] == "chef")
    again = server.chat("contract clause grants tenant notice", headers=headers).headers
    assert again["x-traitroute-reason"].startswith("session: canary: chef:")
    registry.set_canary("chef", 0)
    server.app.state.snapshot = RegistrySnapshot.read(registry)
    assert server.chat(TEXTS[0], headers=headers).headers["x-traitroute-adapter"] == "base"


def test_by_its_name_it_answers_whatever_its_share(trial: Callable[..., Any]) -> None:
    assert json.loads(trial(0.0).chat(TEXTS[0], model="chef").json()["body"])["model"] == "chef"


def test_a_request_that_denies_it_is_no_entry(trial: Callable[..., Any]) -> None:
    seen = answers(trial(0.4), headers={"x-traitroute-deny": "chef"})
    assert {each["x-traitroute-adapter"] for each in seen} == {"base"}
    assert not any("x-traitroute-canary" in each for each in seen)
