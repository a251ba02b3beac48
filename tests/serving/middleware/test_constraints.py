import json
import re
from dataclasses import replace
from typing import Any

import pytest
from traitroute.serving.admin import HEADER
from traitroute.serving.constraints import NOT_CONSTRAINTS
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState


def answered_by(response: Any) -> str:
    assert response.status_code == 200, response.text
    return response.headers["x-traitroute-adapter"]


@pytest.mark.parametrize(
    ("constraints", "adapter"),
    [
        ({}, "code"),
        ({"allow": ["cook"]}, "cook"),
        ({"allow": ["cook", "broken"]}, "cook"),
        ({"deny": ["code"]}, "cook"),
        ({"tags": ["en"]}, "code"),
        ({"tags": ["home", "en"]}, "cook"),
        ({"tags": ["en"], "deny": ["code"]}, "cook"),
        ({"min_gain": 0.05}, "code"),
        ({"min_gain": 0.5}, "base"),
    ],
)
def test_only_what_a_request_admits_may_answer_it(server: Any, constraints: dict[str, Any], adapter: str) -> None:
    assert answered_by(server.chat("code or cook", traitroute=constraints)) == adapter
    headers = {
        f"x-traitroute-{key.replace('_', '-')}": ", ".join(value) if isinstance(value, list) else str(value)
        for key, value in constraints.items()
    }
    assert answered_by(server.chat("code or cook", headers=headers)) == adapter


@pytest.mark.parametrize(
    ("lines", "body", "adapter"),
    [
        ([("deny", "cook")], {"deny": ["code"]}, "base"),
        ([("deny", "cook"), ("deny", "code")], {}, "base"),
        ([("allow", "cook")], {"allow": ["code", "cook"]}, "cook"),
        ([("allow", "cook")], {"allow": ["code"]}, "base"),
        ([("allow", "code"), ("allow", "cook")], {}, "base"),
        ([("allow", "cook")], {"allow": None}, "cook"),
        ([("tags", "en")], {"tags": ["home"]}, "cook"),
        ([("tags", "en"), ("tags", "home")], {}, "cook"),
        ([("min-gain", "0.5")], {"min_gain": -1}, "base"),
        ([("min-gain", "0.5"), ("min-gain", "-1")], {}, "base"),
    ],
)
def test_limits_add_up_so_that_nobody_weakens_anothers(
    server: Any, lines: list[tuple[str, str]], body: dict[str, Any], adapter: str
) -> None:
    headers = [(f"x-traitroute-{name}", value) for name, value in lines]
    assert answered_by(server.chat("code or cook", headers=headers, traitroute=body)) == adapter


def test_of_the_other_constraints_a_header_wins(server: Any, router: Any) -> None:
    headers = {"x-traitroute-reroute": "0", "x-traitroute-explain": "1"}
    asked = {"reroute": True, "explain": False}
    assert answered_by(server.chat("code", "cook", headers=headers, traitroute=asked)) == "code"
    assert router.options["explain"]


@pytest.mark.parametrize("model", ["auto", "code", "tiny"])
def test_the_body_goes_on_without_the_constraints(server: Any, model: str) -> None:
    response = server.chat("code", model=model, traitroute={"deny": ["cook"]}, seed=1)
    assert "traitroute" not in json.loads(response.json()["body"])
    assert json.loads(response.json()["body"])["seed"] == 1
    assert int(response.json()["headers"]["content-length"]) == len(response.json()["body"])


@pytest.mark.parametrize("constraints", [{"tags": ["nobody"]}, {"allow": []}])
def test_where_no_adapter_is_admitted_base_answers_and_says_so(
    server: Any, router: Any, state: ServerState, constraints: dict[str, Any]
) -> None:
    response = server.chat("code", traitroute=constraints)
    assert answered_by(response) == "base"
    assert response.headers["x-traitroute-reason"].startswith("constrained: ")
    assert state.counts == {"constrained": 1}
    assert router.routed == []


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([1], r"\"traitroute\" was \[1\], but must be an object"),
        ({"alow": ["code"]}, "no constraint 'alow': use allow, deny"),
        ({"allow": "code"}, "traitroute.allow was 'code', but must be a list of adapters' names"),
        ({"allow": ["coda"]}, "traitroute.allow names 'coda', .* did you mean 'code'"),
        ({"deny": ["base"]}, "Known: broken, code, cook"),
        ({"allow": [1]}, "traitroute.allow was 1, but"),
        ({"min_gain": 3}, "traitroute.min_gain was 3, but must be a number from -1 to 1"),
        ({"min_gain": True}, "traitroute.min_gain was True"),
        ({"explain": "yes"}, "traitroute.explain was 'yes', but must be true or false"),
        ({"session": ""}, "a key of 1 to 256 characters"),
        ({"session": "k" * 257}, "a key of 1 to 256 characters"),
        ({"allow": ["a" * 81]}, "traitroute.allow was 'a+...a+', but must be .* of 80 characters"),
        ({"deny": ["a" * 10**6]}, "of 80 characters at most"),
        ({"tags": ["a" * 81]}, "of 80 characters at most"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_cure(server: Any, constraints: Any, message: str) -> None:
    response = server.chat("code", traitroute=constraints)
    assert response.status_code == 400
    assert re.search(message, response.json()["error"]["message"])


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-traitroute-denny", "code"),
        ("x-traitroute-min_gain", "-1"),
        ("x-traitroute-deny", "coda"),
        ("x-traitroute-min-gain", "much"),
        ("x-traitroute-min-gain", "nan"),
        ("x-traitroute-explain", "maybe"),
        ("x-traitroute-reroute", "2"),
    ],
)
@pytest.mark.parametrize("model", ["auto", "code", "tiny"])
def test_a_header_that_is_not_understood_is_refused(server: Any, header: str, value: str, model: str) -> None:
    response = server.chat("code", headers={header: value}, model=model)
    assert response.status_code == 400
    assert header in response.json()["error"]["message"]


@pytest.mark.parametrize("header", sorted(NOT_CONSTRAINTS))
def test_headers_of_ours_that_are_no_constraints_are_not_refused(server: Any, header: str) -> None:
    assert answered_by(server.chat("code", headers={header: "cook"})) == "code"


def test_the_admin_keys_header_is_no_constraint() -> None:
    assert HEADER in NOT_CONSTRAINTS


def test_a_server_that_knows_no_adapters_yet_refuses_no_name(server: Any, state: ServerState) -> None:
    state.snapshot = RegistrySnapshot()
    assert answered_by(server.chat("code", traitroute={"allow": ["code"]})) == "base"


def test_a_router_that_ignores_the_constraints_is_not_followed(server: Any, state: Any, router: Any) -> None:
    route = router.route

    class Wilful:
        def route(self, request: str, /, **_: Any) -> Any:
            return route(request)

    state.snapshot = replace(state.snapshot, router=Wilful())
    response = server.chat("code", traitroute={"deny": ["code"]})
    assert answered_by(response) == "base"
    assert response.headers["x-traitroute-reason"].startswith("router-error: ")
