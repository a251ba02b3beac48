"""Whose side a conversation is on, and what a tenant may use, in a real vLLM of two API server processes."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving.topics import TOPICS
from traitroute.serving.profile_snapshot import DecisionToken
from traitroute.serving.vllm import RunningServer

from ..servers import COOKS, HALVED, KEY, TinyHouse

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vllm")]

CHAT = "/v1/chat/completions"
SEEN_WITHIN_S = 3
TEXTS = [f"{TOPICS['cook'][i % len(TOPICS['cook'])]} Number {i}." for i in range(12)]


@pytest.fixture
def client(vllm_server: RunningServer) -> Iterator[httpx.Client]:
    # Over a connection of its own each, any process may answer.
    headers = {"authorization": f"Bearer {KEY}", "connection": "close"}
    with httpx.Client(base_url=vllm_server.base_url, headers=headers, timeout=60) as client:
        yield client


def ask(client: httpx.Client, text: str, key: str, model: str = "auto", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 1, **more}
    return client.post(CHAT, json=body, headers={"authorization": f"Bearer {key}"})


def test_every_server_process_holds_back_the_same_conversations(client: httpx.Client) -> None:
    sides = []
    for _ in range(4):
        answers = [ask(client, text, HALVED) for text in TEXTS]
        sides.append([(a.headers["x-traitroute-arm"], a.json()["model"]) for a in answers])
    assert all(side == sides[0] for side in sides)
    assert {arm for arm, _ in sides[0]} == {"auto", "control"}
    assert all((model == "cook") == (arm == "auto") for arm, model in sides[0])
    # A later turn is on its conversation's side, also where the first one decides anew.
    for text, (arm, _) in zip(TEXTS, sides[0], strict=True):
        turns = [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "and then?"}]
        later = ask(client, text, HALVED, messages=[{"role": "user", "content": text}, *turns])
        token = DecisionToken.read(later.headers["x-traitroute-decision-token"])
        assert (later.headers["x-traitroute-arm"], token.arm, token.propensity) == (arm, arm, 0.5)
    assert {ask(client, text, KEY).headers["x-traitroute-arm"] for text in TEXTS} == {"auto"}


def test_a_tenants_key_reaches_its_adapter_alone_in_every_process(client: httpx.Client) -> None:
    assert ask(client, "hello", COOKS, "cook").status_code == 200
    for _ in range(4):
        hidden, absent = (ask(client, "hello", COOKS, name) for name in ("coder", "codes"))
        assert (hidden.status_code, hidden.text) == (404, absent.text.replace("codes", "coder"))
        chosen = {ask(client, text, COOKS).json()["model"] for text in TOPICS["coder"][:3]}
        assert "coder" not in chosen
        listed = client.get("/v1/models", headers={"authorization": f"Bearer {COOKS}"}).json()["data"]
        assert {"cook"} == {card["id"] for card in listed if card["parent"]} - {"auto"}


def test_every_server_process_gives_a_canary_the_same_conversations(
    client: httpx.Client, tiny_house: TinyHouse
) -> None:
    sides = []
    tiny_house.registry.set_canary("cook", 0.5)
    try:
        time.sleep(SEEN_WITHIN_S)
        for _ in range(4):
            answers = [ask(client, text, KEY) for text in TEXTS]
            sides.append([(a.headers["x-traitroute-canary"], a.json()["model"]) for a in answers])
    finally:
        tiny_house.registry.set_canary("cook", 1.0)
        time.sleep(SEEN_WITHIN_S)
    assert all(side == sides[0] for side in sides)
    assert {canary for canary, _ in sides[0]} == {f"cook;share=0.5;given={given}" for given in (0, 1)}
    assert all((model == "cook") == canary.endswith("1") for canary, model in sides[0])
