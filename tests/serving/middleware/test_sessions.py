import time
from collections.abc import Callable
from typing import Any

import pytest
from traitroute.serving.state import ServerState

MINE = {"x-traitroute-session": "mine"}


def answered_by(response: Any) -> str:
    return response.headers["x-traitroute-adapter"]


def test_a_session_keeps_the_adapter_of_its_first_decision(server: Any, state: ServerState) -> None:
    assert answered_by(server.chat("code", headers=MINE)) == "code"
    response = server.chat("cook", headers=MINE)
    assert answered_by(response) == "code"
    assert response.headers["x-traitroute-gain"] == "+0.134"
    assert response.headers["x-traitroute-reason"].startswith("session: chosen for code")
    assert state.counts == {"adapter": 2, "sticky": 1}
    assert answered_by(server.chat("cook", traitroute={"session": "other"})) == "cook"


def test_a_reason_names_the_session_once_however_long_it_lasts(server: Any) -> None:
    responses = [server.chat("code", headers=MINE) for _ in range(4)]
    assert responses[-1].headers["x-traitroute-reason"].count("session: ") == 1


def test_base_is_kept_as_well(server: Any) -> None:
    assert answered_by(server.chat("hello", headers=MINE)) == "base"
    assert answered_by(server.chat("code", headers=MINE)) == "base"


def test_a_session_needs_no_text_after_its_first_request(server: Any) -> None:
    server.chat("code", headers=MINE)
    response = server.post("/v1/completions", {"model": "auto", "prompt": [1, 2]}, MINE)
    assert answered_by(response) == "code"


def test_without_a_key_the_first_user_turn_keeps_the_adapter(server: Any) -> None:
    assert answered_by(server.chat("code")) == "code"
    assert answered_by(server.chat("code", "cook")) == "code"


@pytest.mark.parametrize("how", ["header", "body"])
def test_reroute_decides_from_the_last_user_turn(server: Any, how: str) -> None:
    asked = {"headers": {"x-traitroute-reroute": "1"}} if how == "header" else {"traitroute": {"reroute": True}}
    assert answered_by(server.chat("code", "cook", **asked)) == "cook"


def test_a_session_keeps_what_a_reroute_decided(server: Any) -> None:
    server.chat("code", headers=MINE)
    server.chat("code", "cook", headers=MINE | {"x-traitroute-reroute": "1"})
    assert answered_by(server.chat("code", "cook", "and", headers=MINE)) == "cook"


def test_reroute_passes_over_turns_that_hold_only_tool_results(server: Any) -> None:
    result = {"type": "tool_result", "tool_use_id": "a", "content": "code"}
    turns = [
        {"role": "user", "content": "code"},
        {"role": "user", "content": "now cook"},
        {"role": "user", "content": [result]},
    ]
    body = {"model": "auto", "messages": turns, "traitroute": {"reroute": True}}
    assert answered_by(server.post("/v1/messages", body)) == "cook"


def test_a_kept_choice_gives_way_to_constraints_and_withdrawal(server: Any, offer: Callable[..., None]) -> None:
    server.chat("code cook", headers=MINE)
    strict = {"traitroute": {"min_gain": 0.5}}
    assert answered_by(server.chat("code cook", headers=MINE, **strict)) == "base"
    server.chat("code cook", headers=MINE | {"x-traitroute-reroute": "1"})
    denied = {"traitroute": {"deny": ["code"]}}
    assert answered_by(server.chat("code cook", headers=MINE, **denied)) == "cook"
    offer("code")
    assert answered_by(server.chat("code", headers=MINE)) == "code"


@pytest.mark.parametrize("text", ["slow", "crash", "broken"])
def test_a_failure_is_not_kept(server: Any, text: str) -> None:
    assert answered_by(server.chat(text, headers=MINE)) == "base"
    assert answered_by(server.chat("code", headers=MINE)) == "code"


def test_an_unused_session_is_forgotten(serve: Callable[[ServerState], Any], state: ServerState) -> None:
    state.session_ttl_s = 0.05
    server = serve(state)
    server.chat("code", headers=MINE)
    time.sleep(0.06)
    assert answered_by(server.chat("cook", headers=MINE)) == "cook"


def test_the_least_recently_used_session_makes_room(serve: Callable[[ServerState], Any], state: ServerState) -> None:
    state.session_keys = 2
    server = serve(state)
    for key in ("a", "b", "a", "c"):
        server.chat("code", headers={"x-traitroute-session": key})
    kept = [key for key in "ca" if answered_by(server.chat("cook", headers={"x-traitroute-session": key})) == "code"]
    assert kept == ["c", "a"]
    assert answered_by(server.chat("cook", headers={"x-traitroute-session": "b"})) == "cook"
