"""Constraints bind an adapter that is asked for by its name, on every path and in every way that it can be named."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from traitroute.serving.middleware.middleware import ENDPOINTS, INVOCATIONS
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

SAGEMAKER = "X-Amzn-SageMaker-Adapter-Identifier"
BODIES = {"messages": [{"role": "user", "content": "a"}], "prompt": "a", "input": "a"}
DENIED = {"x-traitroute-deny": "code"}


def message(response: Any) -> str:
    return response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("constraints", "named"),
    [
        ({"deny": ["code"]}, "deny"),
        ({"deny": ["cook", "code"]}, "deny"),
        ({"allow": ["cook"]}, "allow"),
        ({"allow": []}, "allow"),
        ({"tags": ["home"]}, "tags"),
        ({"allow": ["code"], "deny": ["code"]}, "deny"),
    ],
)
@pytest.mark.parametrize("given_in", ["headers", "body"])
def test_an_adapter_that_is_not_admitted_is_refused_by_name(
    server: Any, state: Any, constraints: dict[str, list[str]], named: str, given_in: str
) -> None:
    if given_in == "body":
        response = server.chat("a", model="code", traitroute=constraints)
    else:
        headers = {f"x-traitroute-{k}": ", ".join(v) for k, v in constraints.items()}
        response = server.chat("a", model="code", headers=headers)
    assert response.status_code == 403
    assert f"x-traitroute-{named}" in message(response)
    assert "'code'" in message(response)
    assert state.loader.loaded == []


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
def test_what_the_registry_withholds_reaches_no_app_that_may_have_preloaded_it(
    server: Any, state: ServerState, path: str
) -> None:
    state.invocations_header = SAGEMAKER
    state.snapshot = replace(state.snapshot, withheld=frozenset({"old", "tiny"}))
    named = {SAGEMAKER: "old"} if path == INVOCATIONS else {}
    response = server.post(path, {"model": "old", **BODIES}, named)
    assert response.status_code == 404
    assert "'old' does not exist" in response.text
    named = {SAGEMAKER: "tiny"} if path == INVOCATIONS else {}
    assert server.post(path, {"model": "tiny", **BODIES}, named).status_code == 200


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
def test_constraints_hold_at_every_endpoint(server: Any, state: ServerState, path: str) -> None:
    state.invocations_header = SAGEMAKER
    named = {SAGEMAKER: "code"} if path == INVOCATIONS else {}
    response = server.post(path, {"model": "code", **BODIES}, {**DENIED, **named})
    assert response.status_code == 403
    assert response.json()["error"]["type"] == "permission_error"
    assert "x-traitroute-deny" in message(response)


@pytest.mark.parametrize(
    "path",
    ["/v1/score", "/rerank", "/v1/chat/completions/batch", "/inference/v1/generate", INVOCATIONS],
)
def test_headers_hold_on_all_other_paths(server: Any, path: str) -> None:
    assert server.post(path, {"model": "code"}, DENIED).status_code == 403
    for model in ("cook", "tiny", "auto"):
        response = server.post(path, {"model": model, "traitroute": {"x": 1}}, DENIED)
        assert json.loads(response.json()["body"]) == {"model": model, "traitroute": {"x": 1}}


@pytest.mark.parametrize("constraints", [{"deny": ["cook"]}, {"allow": ["code"]}, {"tags": ["work"]}, {"min_gain": 1}])
def test_an_adapter_that_is_admitted_answers_by_name(server: Any, state: Any, constraints: dict[str, Any]) -> None:
    response = server.chat("a", model="code", traitroute=constraints)
    assert json.loads(response.json()["body"])["model"] == "code"
    assert state.loader.loaded == ["code"]


@pytest.mark.parametrize("model", ["tiny", "base", "", None])
def test_the_base_model_always_may_answer(server: Any, model: str | None) -> None:
    headers = {"x-traitroute-allow": "", "x-traitroute-tags": "none"}
    assert server.chat("a", model=model, headers=headers).status_code == 200


def test_a_name_that_nobody_knows_is_the_apps_to_refuse_unless_only_some_are_allowed(
    server: Any,
) -> None:
    assert server.chat("a", model="nobody", headers=DENIED).status_code == 200
    for header, value in (("allow", "code"), ("tags", "work")):
        headers = {f"x-traitroute-{header}": value}
        assert server.chat("a", model="nobody", headers=headers).status_code == 403


def test_what_a_name_stands_for_is_bound(server: Any, state: ServerState) -> None:
    state.resolve = {"coder:latest": "code", "code@0123456789ab": "code", "hf/tiny": "tiny"}.get  # pyright: ignore[reportAttributeAccessIssue]
    for model in ("coder:latest", "code@0123456789ab"):
        assert server.chat("a", model=model, headers=DENIED).status_code == 403
    strict = {"x-traitroute-allow": "code"}
    for model in ("coder:latest", "code@0123456789ab", "hf/tiny"):
        assert server.chat("a", model=model, headers=strict).status_code == 200


def test_who_denies_an_adapter_denies_what_is_to_replace_it(server: Any, offer: Callable[..., None]) -> None:
    offer("code", "code@2")
    assert server.chat("a", model="code@2", headers=DENIED).status_code == 403
    assert server.chat("a", model="code", headers={"x-traitroute-deny": "code@2"}).status_code == 200


@pytest.mark.parametrize("model", ["auto", "cook"])
@pytest.mark.parametrize(
    "field",
    [
        {"Model": "code"},
        {"MODEL": "code"},
        {"adapter_id": "code"},
        {"lora_path": "code"},
        {"models": ["code"]},
    ],
)
def test_no_other_field_names_an_adapter_where_constraints_hold(server: Any, model: str, field: dict[str, str]) -> None:
    response = server.chat("a", model=model, headers=DENIED, **field)
    assert response.status_code == 403
    assert response.json()["error"]["param"] in field
    assert server.chat("a", model=model, **field).status_code == 200


@pytest.mark.parametrize("field", ["model", "MODEL", "adapter_id"])
def test_no_settings_name_an_adapter_where_constraints_hold(server: Any, field: str) -> None:
    for settings in ("parameters", "extra_body"):
        response = server.chat("a", model="cook", headers=DENIED, **{settings: {field: "code"}})
        assert response.status_code == 403


@pytest.mark.parametrize("model", [["code"], {"name": "code"}, 1])
def test_a_model_that_is_no_text_is_refused_where_constraints_hold(server: Any, model: Any) -> None:
    assert server.chat("a", model=model, headers=DENIED).status_code == 400
    assert server.chat("a", model=model).status_code == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/audio/transcriptions"])
@pytest.mark.parametrize("body", [b'{"model": "code"} x', b"[]", b"model=code", b"--x\r\nmodel\r\n"])
def test_a_body_that_shows_no_model_is_refused_where_constraints_hold(server: Any, path: str, body: bytes) -> None:
    response = server.post(path, body, DENIED)
    assert response.status_code == 400
    assert "is not a JSON object" in message(response)
    assert server.post(path, body).status_code == 200


@pytest.mark.parametrize(
    "content", [b'{"model": "code", "model": "cook"}', b'{"model": "code", "m\\u006fdel": "cook"}']
)
def test_the_app_behind_finds_one_model_where_constraints_hold(server: Any, content: bytes) -> None:
    response = server.post("/v1/completions", content, DENIED)
    assert json.loads(response.json()["body"], object_pairs_hook=list) == [("model", "cook")]


def test_of_two_headers_that_name_a_model_no_second_one_goes_on(server: Any, state: ServerState) -> None:
    state.invocations_header = SAGEMAKER
    both = [(SAGEMAKER, ""), (SAGEMAKER, "code"), *DENIED.items()]
    assert server.post(INVOCATIONS, BODIES, both).status_code == 403
    both = [(SAGEMAKER, "cook"), (SAGEMAKER, "code"), *DENIED.items()]
    told = server.post(INVOCATIONS, BODIES, both).json()["headers"]
    assert told[SAGEMAKER.lower()] == "cook"


def test_before_the_registry_is_read_constraints_hold_as_they_are_written(server: Any, state: ServerState) -> None:
    state.snapshot = RegistrySnapshot()
    assert server.chat("a", model="code", headers=DENIED).status_code == 403
    assert server.chat("a", model="code", headers={"x-traitroute-tags": "work"}).status_code == 403


def test_a_connection_on_which_models_are_named_later_is_not_opened(server: Any) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"x-traitroute-deny", b"code")]
    scope = {"type": "websocket", "path": "/v1/realtime", "headers": headers}
    asyncio.run(server.app(scope, None, send))
    assert [each["type"] for each in sent] == ["websocket.close"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_name_without_end_is_refused_unread(server: Any, path: str) -> None:
    for model in ("a" * 1025, "a" * 10**6):
        response = server.post(path, {"model": model, **BODIES})
        assert response.status_code == 400
        assert f"{len(model)} characters" in message(response)
