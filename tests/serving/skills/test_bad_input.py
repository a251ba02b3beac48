"""What cannot be answered is refused with a message that helps; nothing is stored, nothing fails."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traitroute.adapters import Registry
from traitroute.serving.skills import skills
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.timeouts import TimeBudget

REFUSED = [
    ({}, 400, None),
    ([], 400, None),
    ({"task": "x" * 10**6}, 413, "task"),
    ({"task": 3}, 400, "task"),
    ({"task": "x", "messages": []}, 400, None),
    ({"messages": []}, 400, "messages"),
    ({"messages": [{"role": "user", "content": 3}]}, 400, "messages"),
    ({"task": "x", "k": 0}, 400, "k"),
    ({"task": "x", "k": 101}, 400, "k"),
    ({"task": "x", "k": "3"}, 400, "k"),
    ({"task": "x", "konstraints": {}}, 400, "konstraints"),
    ({"task": "x", "constraints": {"alow": ["chef"]}}, 400, "constraints.alow"),
    ({"task": "x", "constraints": {"allow": ["nobody"]}}, 400, "constraints.allow"),
    ({"task": "x", "constraints": {"min_gain": 2}}, 400, "constraints.min_gain"),
    ({"task": "x", "constraints": {"explain": True}}, 400, "constraints.explain"),
]


@pytest.mark.parametrize(("body", "status", "param"), REFUSED)
def test_a_selection_says_what_is_wrong(
    server: Any, registry: Registry, body: Any, status: int, param: str | None
) -> None:
    response = server.post("/v1/skills/select", body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert error["message"]
    assert len(response.content) < 1000
    assert registry.feedback() == []


WORDLESS = [
    {"task": "."},
    {"task": " "},
    {"task": ""},
    {"messages": [{"role": "system", "content": "simmer"}]},
]


@pytest.mark.parametrize("body", WORDLESS)
def test_for_a_sub_task_without_words_base_is_selected(server: Any, body: dict[str, Any]) -> None:
    selection = server.post("/v1/skills/select", body).json()
    assert (selection["choice"], selection["gain"]) == ("base", 0.0)
    assert selection["reason"].startswith("no-text: ")
    plan = server.post("/v1/skills/plan", {"steps": [body]}).json()
    assert [step["assigned"] for step in plan["steps"]] == ["base"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000, b"null"])
def test_what_is_not_json_is_refused(server: Any, body: bytes) -> None:
    for path in ("/v1/skills/select", "/v1/skills/plan", "/v1/feedback"):
        assert server.post(path, body).status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("select", b'{"task": "\\ud83d"}', "task"),
        ("select", b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', "messages.0.content"),
        ("plan", b'{"steps": [{"task": "a"}, {"task": "\\ud83d"}]}', "steps.1.task"),
    ],
)
def test_half_a_character_is_refused(server: Any, path: str, body: bytes, param: str) -> None:
    response = server.post(f"/v1/skills/{path}", body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_a_body_beyond_the_limit_is_refused(server: Any) -> None:
    server.state.max_body_bytes = 1000
    assert server.post("/v1/skills/select", {"task": "x" * 1000}).status_code == 413


def test_an_empty_or_endless_plan_is_refused(server: Any) -> None:
    for steps in ([], [{"task": "x"}] * 101):
        response = server.post("/v1/skills/plan", {"steps": steps})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "steps"


def test_without_a_profile_the_reason_is_told(server: Any) -> None:
    server.state.snapshot = RegistrySnapshot(no_router="no-profile: nothing was profiled")
    for path in ("/v1/skills", "/v1/skills/chef", "/v1/traits", "/v1/matrix"):
        response = server.get(path)
        assert response.status_code == 503
        assert "nothing was profiled" in response.json()["error"]["message"]


def test_a_busy_server_says_when_to_come_again(server: Any) -> None:
    server.state.budget = type(server.state.budget)(workers=1, waiting=0)
    response = server.post("/v1/skills/select", {"task": "simmer"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
NAMES = st.lists(st.sampled_from(["chef", "pilot", "nobody"]), max_size=2)
LIMITS = st.fixed_dictionaries(
    {}, optional={"allow": NAMES, "deny": NAMES, "tags": NAMES, "min_gain": st.floats() | JSON}
)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": JSON})
STEP = st.fixed_dictionaries(
    {},
    optional={
        "task": st.text(max_size=20) | JSON,
        "messages": st.lists(TURN, max_size=3) | JSON,
        "tools": JSON,
        "constraints": LIMITS | JSON,
        "k": st.integers(-1, 4) | JSON,
    },
)
PLAN = st.fixed_dictionaries({"steps": st.lists(STEP, max_size=3) | JSON}, optional={"max_loss": st.floats() | JSON})
TOLD = st.fixed_dictionaries({"decision": st.text(max_size=40) | JSON, "reward": st.floats() | JSON})
ASKED = (
    st.tuples(st.just("/v1/skills/select"), STEP | JSON)
    | st.tuples(st.just("/v1/skills/plan"), PLAN | JSON)
    | st.tuples(st.just("/v1/feedback"), TOLD | JSON)
)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=ASKED)
def test_no_request_ends_in_a_fault_of_ours(
    server: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, Any]
) -> None:
    path, body = asked
    # A machine that is busy with other tests may stall for longer than a server lets work take.
    monkeypatch.setattr(skills, "SECONDS", 60.0)
    # Threads of an earlier example's event loop are not waited for.
    server.state.budget = TimeBudget(wait_s=60.0)
    response = asyncio.run(server.request("POST", path, content=json.dumps(body).encode()))
    assert response.status_code in (200, 400, 404, 413), response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]
    assert registry.feedback() == []
