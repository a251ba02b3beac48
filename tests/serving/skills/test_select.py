"""Which skill a sub-task needs, why, and at what risk."""

from collections.abc import Callable
from typing import Any

import pytest

Text = Callable[[str], str]


def test_the_skill_that_gains_is_chosen_and_base_stands_where_gains_end(server: Any, text_of: Text) -> None:
    found = server.select(text_of("cooking"))
    assert found["choice"] == "chef"
    assert found["low"] > 0
    gains = [skill["gain"] for skill in found["ranking"]]
    assert gains == sorted(gains, reverse=True)
    assert found["ranking"][[s["name"] for s in found["ranking"]].index("base")]["gain"] == 0
    assert found["nearest_tasks"][0]["task"] == "cooking"
    assert found["demand"][0]["name"] == "kitchen work"


def test_where_no_skill_gains_base_is_chosen(server: Any, text_of: Text) -> None:
    assert server.select(text_of("law"))["choice"] == "base"


def test_side_effects_are_tasks_on_which_a_skill_surely_loses(server: Any, text_of: Text) -> None:
    ranking = {skill["name"]: skill for skill in server.select(text_of("cooking"))["ranking"]}
    lost = ranking["chef"]["side_effects"]
    assert [each["task"] for each in lost] == ["law", "space"]
    assert all(each["high"] < 0 and each["examples"] == 40 for each in lost)
    assert ranking["idle"]["side_effects"] == []


def test_chat_messages_are_read_as_generation_reads_them(server: Any, text_of: Text) -> None:
    text = text_of("space")
    turns = [
        {"role": "system", "content": text_of("cooking")},
        {"role": "user", "content": [{"type": "text", "text": text}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": text_of("garden")},
    ]
    tools = [{"type": "function", "function": {"name": "simmer"}}]
    response = server.post("/v1/skills/select", {"messages": turns, "tools": tools})
    found = response.json()
    assert found["choice"] == "pilot"
    assert found["ranking"] == server.select(text)["ranking"]


@pytest.mark.parametrize(
    ("constraints", "choice"),
    [
        ({"deny": ["chef"]}, {"base", "idle"}),
        ({"allow": ["pilot"]}, {"base"}),
        ({"tags": ["kitchen"]}, {"chef"}),
        ({"tags": ["none"]}, {"base"}),
        ({"min_gain": 0.95}, {"base"}),
    ],
)
def test_constraints_are_kept(server: Any, text_of: Text, constraints: dict[str, Any], choice: set[str]) -> None:
    assert server.select(text_of("cooking"), constraints=constraints)["choice"] in choice


def test_k_limits_the_ranking_beside_base(server: Any, text_of: Text) -> None:
    names = {s["name"] for s in server.select(text_of("cooking"), k=1)["ranking"]}
    assert names == {"chef", "base"}


def test_the_same_answer_as_routing_gives(server: Any, text_of: Text) -> None:
    for task in ("cooking", "garden", "space", "law"):
        routed, selected = server.route(text_of(task)), server.select(text_of(task))
        assert routed.headers["x-traitroute-adapter"] == selected["choice"]
        assert float(routed.headers["x-traitroute-gain"]) == pytest.approx(selected["gain"], abs=1e-3)


def test_whether_a_skill_is_loaded_is_told_where_it_is_known(server: Any, text_of: Text) -> None:
    server.state.loaded = lambda name: name == "chef"
    loaded = {s["name"]: s["loaded"] for s in server.select(text_of("cooking"))["ranking"]}
    assert loaded == {"chef": True, "pilot": False, "idle": False, "base": True}
