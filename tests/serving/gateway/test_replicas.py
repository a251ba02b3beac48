"""Replicas of a gateway share nothing but the registry, and hold back the same conversations."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Send
from traitroute.adapters import FeedbackSource, Registry
from traitroute.serving.middleware import outcomes
from traitroute.serving.profile_snapshot import DecisionToken

from ...servers import running_traitroute
from .conftest import CHAT, Gateway, Serve, Upstream, ask, eventually, reply

pytestmark = pytest.mark.slow

QUESTIONS = [f"how long do I boil {n} eggs a" for n in range(20)]


class Speaking(Upstream):
    """An upstream whose chat answers say something."""

    async def _answer(self, path: str, asked: dict[str, Any], receive: Receive, send: Send) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": "ten minutes"}, "finish_reason": "stop"}
        await reply(send, {"model": asked["model"], "choices": [choice]}, 200)


@pytest.fixture
def replicas(gateway: Gateway, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> list[httpx.Client]:
    """Two gateways before one upstream."""
    monkeypatch.setenv("TRAITROUTE_HOLDBACK", "0.5")
    monkeypatch.setenv("TRAITROUTE_OUTCOMES", "answered")
    monkeypatch.setattr(outcomes, "WRITE_EVERY_S", 0.1)
    upstream = serve(Speaking("cook"))
    return [gateway(upstream.url) for _ in range(2)]


def test_replicas_hold_back_the_same_conversations(replicas: list[httpx.Client], registry: Path) -> None:
    tokens = []
    for client in replicas:
        answers = [ask(client, question) for question in QUESTIONS]
        by_arm = {"auto": "cook", "control": "base"}
        for answer in answers:
            headers = answer.headers
            assert headers["x-traitroute-adapter"] == by_arm[headers["x-traitroute-arm"]]
            assert answer.json()["model"] in (headers["x-traitroute-adapter"], "tiny")
        tokens.append([DecisionToken.read(a.headers["x-traitroute-decision-token"]) for a in answers])
    sides = [[(token.arm, token.conversation) for token in each] for each in tokens]
    assert sides[0] == sides[1]
    assert {arm for arm, _ in sides[0]} == {"auto", "control"}
    assert {token.policy for each in tokens for token in each} == {"cook"}


def test_processes_that_hash_otherwise_hold_back_the_same(serve: Serve, registry: Path, tmp_path: Path) -> None:
    upstream, sides = serve(Speaking("cook")), []
    for seed in ("1", "2"):
        command = ["gateway", "--registry", str(registry), "--upstream", upstream.url]
        variables = {"TRAITROUTE_HOLDBACK": "0.5", "PYTHONHASHSEED": seed}
        with (
            running_traitroute(command, tmp_path / f"{seed}.log", variables) as server,
            httpx.Client(base_url=server.base_url, timeout=20, trust_env=False) as client,
        ):
            headers = [ask(client, question).headers for question in QUESTIONS]
            tokens = [DecisionToken.read(each["x-traitroute-decision-token"]) for each in headers]
            sides.append([(token.arm, token.conversation) for token in tokens])
    assert sides[0] == sides[1]
    assert {arm for arm, _ in sides[0]} == {"auto", "control"}


def test_later_turns_are_on_the_same_side_at_either_replica(replicas: list[httpx.Client]) -> None:
    for i, question in enumerate(QUESTIONS[:8]):
        first = ask(replicas[i % 2], question).headers
        later = [("user", question), ("assistant", "ten minutes"), ("user", f"and {i} more?")]
        messages = [{"role": role, "content": text} for role, text in later]
        answer = replicas[1 - i % 2].post(CHAT, json={"model": "auto", "messages": messages}).headers
        for part in ("adapter", "arm", "propensity"):
            assert answer[f"x-traitroute-{part}"] == first[f"x-traitroute-{part}"]


def test_replicas_give_a_canary_the_same_conversations(replicas: list[httpx.Client], registry: Path) -> None:
    with Registry.open(registry) as opened:
        opened.set_canary("cook", 0.5)
    for client in replicas:
        eventually(lambda client=client: "x-traitroute-canary" in ask(client, QUESTIONS[0]).headers)
    parts = ("adapter", "arm", "canary", "propensity")
    seen = [
        [tuple(ask(client, question).headers[f"x-traitroute-{part}"] for part in parts) for question in QUESTIONS]
        for client in replicas
    ]
    assert seen[0] == seen[1]
    assert {canary for _, _, canary, _ in seen[0]} == {f"cook;share=0.5;given={given}" for given in (0, 1)}
    assert {arm for _, arm, _, _ in seen[0]} == {"auto", "canary", "control"}


def test_no_header_brings_a_client_to_the_other_side(replicas: list[httpx.Client]) -> None:
    for question in QUESTIONS[:8]:
        side = ask(replicas[0], question).headers["x-traitroute-arm"]
        other = "auto" if side == "control" else "control"
        given = {"x-traitroute-arm": other, "x-traitroute-propensity": "1", "x-traitroute-adapter": "cook"}
        assert ask(replicas[1], question, headers=given).headers["x-traitroute-arm"] == side


def test_a_gateway_reports_what_it_sees_of_answers(replicas: list[httpx.Client], registry: Path) -> None:
    token = ask(replicas[0], QUESTIONS[0]).headers["x-traitroute-decision-token"]
    with Registry.open(registry, read_only=True) as opened:
        eventually(lambda: opened.feedback(source=FeedbackSource.ANSWERED) != [])
        [kept] = opened.feedback(source=FeedbackSource.ANSWERED)
    assert (kept.token, kept.reward) == (token, 1)
