"""What a tenant may do with its own adapters: `auto`, names, sessions, feedback and a control group of its own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from traitroute.adapters import Registry
from traitroute.serving.http import tenants
from traitroute.serving.http.tenants import key_hash
from traitroute.serving.middleware.middleware import ENDPOINTS, UNROUTED
from traitroute.serving.profile_snapshot import DecisionToken

from .conftest import COOK, FLYER, GUEST, MESSAGES, OPERATOR, TENANTS, bearer, routed, stand_app


def test_auto_chooses_among_what_is_the_tenants(stand: TestClient, text_of: Callable[[str], str]) -> None:
    space, cooking = text_of("space"), text_of("cooking")
    chosen = {
        key: [routed(stand, key, text).headers["x-traitroute-adapter"] for text in (space, cooking)]
        for key in (OPERATOR, COOK, FLYER, GUEST)
    }
    assert chosen[OPERATOR] == ["pilot", "chef"]
    assert chosen[COOK] == ["base", "chef"]
    assert chosen[FLYER] == ["pilot", "base"]
    assert chosen[GUEST] == ["base", "base"]
    reason = routed(stand, COOK, space).headers["x-traitroute-reason"]
    assert "pilot" not in reason


def test_who_names_no_model_is_answered_by_base(stand: TestClient) -> None:
    for model in ({}, {"model": None}, {"model": ""}):
        asked = stand.post("/v1/score", json={"text_1": "x", **model}, headers=bearer(COOK))
        assert json.loads(asked.json()["asked"])["model"] == "base"
    assert stand.post("/v1/score", content=b"model=pilot", headers=bearer(COOK)).status_code == 400
    twice = b'{"model": "pilot", "text_1": "x", "model": "chef"}'
    asked = stand.post("/v1/score", content=twice, headers=bearer(COOK))
    assert "pilot" not in asked.json()["asked"]


def test_a_tenant_may_ask_for_its_own(stand: TestClient) -> None:
    for path in sorted({*ENDPOINTS, *UNROUTED} - {"/invocations"}):
        body = {"model": "chef", "messages": MESSAGES, "prompt": "x", "input": "x"}
        asked = stand.post(path, json=body, headers=bearer(COOK))
        assert asked.status_code == 200, path
        assert json.loads(asked.json()["asked"])["model"] == "chef"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/metrics",
            "/v1/lift",
            "/v1/canaries",
            "/v1/load_lora_adapter",
            "/sleep",
            "/collective_rpc",
            "/server_info",
            "/v1/responses/x",
        ),
        *("//v1/models", "/v1/models/../metrics", "/v1/score/x", "/V1/MODELS", "/v1/audio/transcriptions", "/"),
    ],
)
def test_what_is_not_made_for_tenants_is_closed_to_them(stand: TestClient, path: str) -> None:
    url = f"http://testserver{path}"
    for method in ("GET", "POST"):
        assert stand.request(method, url, headers=bearer(COOK)).status_code in (403, 404)
        assert stand.request(method, url, headers=bearer("wrong")).status_code == 401
    assert stand.request("POST", url, headers=bearer(OPERATOR)).status_code == 200


def test_a_session_is_one_tenants(stand: TestClient, text_of: Callable[[str], str]) -> None:
    session = {"traitroute": {"session": "the same"}}
    assert routed(stand, FLYER, text_of("space"), **session).headers["x-traitroute-adapter"] == "pilot"
    again = routed(stand, FLYER, text_of("cooking"), **session)
    assert again.headers["x-traitroute-reason"].startswith("session: ")
    other = routed(stand, COOK, text_of("cooking"), **session)
    assert other.headers["x-traitroute-adapter"] == "chef"
    assert not other.headers["x-traitroute-reason"].startswith("session: ")


def test_an_explanation_is_for_whom_it_was_made(stand: TestClient, text_of: Callable[[str], str]) -> None:
    made = routed(stand, FLYER, text_of("space"), traitroute={"explain": True})
    path = f"/v1/decisions/{made.headers['x-traitroute-decision-id']}"
    assert stand.get(path, headers=bearer(FLYER)).json()["adapter"] == "pilot"
    assert stand.get(path, headers=bearer(OPERATOR)).status_code == 200
    refused = stand.get(path, headers=bearer(COOK))
    unknown = stand.get("/v1/decisions/none", headers=bearer(COOK))
    assert (refused.status_code, refused.text) == (404, unknown.text)


def test_a_decision_on_anothers_adapter_is_none(
    registry: Registry, tenants_file: Path, text_of: Callable[[str], str]
) -> None:
    with TestClient(stand_app(registry)) as stand:
        tokens = [
            routed(stand, FLYER, text_of("space")).headers["x-traitroute-decision-token"],
            stand.post("/v1/skills/select", json={"task": text_of("space")}, headers=bearer(FLYER)).json()["decision"],
        ]
        for token in tokens:
            body = {"decision": token, "reward": 0}
            refused = stand.post("/v1/feedback", json=body, headers=bearer(COOK))
            forged = stand.post("/v1/feedback", json={"decision": "e30.e30", "reward": 0}, headers=bearer(COOK))
            assert (refused.status_code, refused.text) == (404, forged.text)
            assert stand.post("/v1/feedback", json=body, headers=bearer(FLYER)).json()["skill"] == "pilot"
        first, second = (
            stand.post("/v1/skills/select", json={"task": text}, headers=bearer(COOK)).json()["decision"]
            for text in ("simmer the soup", "bake the bread")
        )
        worse = {"decision": first, "better_than": tokens[0]}
        refused = stand.post("/v1/feedback", json=worse, headers=bearer(COOK))
        forged = stand.post("/v1/feedback", json=worse | {"better_than": "e30.e30"}, headers=bearer(COOK))
        assert (refused.status_code, refused.text) == (404, forged.text)
        worse["better_than"] = second
        assert stand.post("/v1/feedback", json=worse, headers=bearer(COOK)).status_code == 200
        own = routed(stand, COOK, text_of("cooking")).headers["x-traitroute-decision-token"]
        given = {"decision": own, "reward": 1}
        assert stand.post("/v1/feedback", json=given, headers=bearer(COOK)).status_code == 200
    assert {kept.adapter for kept in registry.feedback()} == {"pilot", "chef"}


def test_a_tenant_may_have_a_control_group_of_its_own(
    tenants_file: Path, filled: Path, text_of: Callable[[str], str]
) -> None:
    tenants_file.write_text(TENANTS.replace('adapters = ["pilot"]', 'adapters = ["*"]\nholdback = 0.5'))
    with Registry.open(filled, read_only=True) as opened, TestClient(stand_app(opened)) as server:
        text = text_of("space")
        arms = {
            key: {routed(server, key, f"{text} {i}").headers["x-traitroute-arm"] for i in range(20)}
            for key in (FLYER, OPERATOR, COOK)
        }
    assert arms == {FLYER: {"auto", "control"}, OPERATOR: {"auto"}, COOK: {"auto"}}


def test_a_canary_of_anothers_is_neither_told_nor_changes_anything(
    registry: Registry, tenants_file: Path, text_of: Callable[[str], str]
) -> None:
    registry.set_canary("pilot", 0.5)
    texts = [f"{text_of('space')} {i}" for i in range(12)]
    with TestClient(stand_app(registry)) as server:
        seen = {key: [routed(server, key, text) for text in texts] for key in (FLYER, COOK)}
    assert {each.headers["x-traitroute-adapter"] for each in seen[FLYER]} == {"pilot", "base"}
    for each in seen[COOK]:
        assert (each.headers["x-traitroute-adapter"], each.headers["x-traitroute-arm"]) == ("base", "auto")
        assert "pilot" not in str(each.headers)
        token = DecisionToken.read(each.headers["x-traitroute-decision-token"])
        assert (token.canary, token.policy) == (None, None)


def test_a_tag_that_only_others_adapters_have_is_like_none(stand: TestClient, text_of: Callable[[str], str]) -> None:
    told = [
        routed(stand, FLYER, text_of("cooking"), traitroute={"tags": [tag]}).headers["x-traitroute-reason"]
        for tag in ("kitchen", "nothing")
    ]
    assert told[0] == told[1]


def test_a_change_of_the_file_is_in_force_at_once_and_a_slip_changes_nothing(
    tenants_file: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenants, "EVERY_S", 0.0)
    skills = lambda key: server.get("/v1/skills", headers=bearer(key))  # noqa: E731
    with Registry.open(filled, read_only=True) as opened, TestClient(stand_app(opened)) as server:
        assert [s["name"] for s in skills(COOK).json()["skills"]] == ["chef"]
        tenants_file.write_text(TENANTS.replace('tags = ["kitchen"]', 'adapters = ["idle"]'))
        assert [s["name"] for s in skills(COOK).json()["skills"]] == ["idle"]
        for slip in ("[tenants.cooks", '[tenants.cooks]\nadapters = "*"', TENANTS + "[tenants.x]"):
            tenants_file.write_text(slip)
            assert [s["name"] for s in skills(COOK).json()["skills"]] == ["idle"]
        tenants_file.write_text("")
        assert skills(COOK).status_code == 401
        tenants_file.write_text(TENANTS)
        assert [s["name"] for s in skills(COOK).json()["skills"]] == ["chef"]


def test_without_a_file_every_key_may_all(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAITROUTE_TENANTS", raising=False)
    with Registry.open(filled, read_only=True) as opened, TestClient(stand_app(opened)) as server:
        assert len(server.get("/v1/skills", headers=bearer(OPERATOR)).json()["skills"]) == 3
        assert server.get("/v1/skills", headers=bearer(COOK)).status_code == 401
        assert server.post("/metrics", headers=bearer(OPERATOR)).status_code == 200


def test_the_operators_key_that_the_file_lists_is_its_tenants(tenants_file: Path, filled: Path) -> None:
    tenants_file.write_text(TENANTS.replace(key_hash(COOK), key_hash(OPERATOR)))
    with Registry.open(filled, read_only=True) as opened, TestClient(stand_app(opened)) as server:
        assert [s["name"] for s in server.get("/v1/skills", headers=bearer(OPERATOR)).json()["skills"]] == ["chef"]
