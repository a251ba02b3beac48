import json
from typing import Any

import pytest
from traitroute.serving.state import ServerState

TURNS = [
    {"role": "system", "content": "cook"},
    {"role": "user", "content": [{"type": "text", "text": "some code"}]},
    {"role": "assistant", "content": "cook"},
    {"role": "user", "content": "then cook"},
]
BODIES = [
    ("/v1/chat/completions", {"messages": TURNS}),
    ("/v1/completions", {"prompt": ["some code", "cook"]}),
    ("/v1/responses", {"input": "some code", "instructions": "cook"}),
    ("/v1/responses", {"input": TURNS}),
    ("/v1/responses", {"input": "cook", "previous_input_messages": TURNS[:2]}),
    ("/v1/messages", {"messages": TURNS[1:], "system": "cook"}),
    ("/v1/messages/count_tokens", {"messages": TURNS[1:]}),
    ("/v1/embeddings", {"input": ["some code", "cook"]}),
    ("/v1/embeddings", {"messages": [TURNS, []]}),
    ("/tokenize", {"prompt": "some code"}),
    ("/tokenize", {"messages": TURNS}),
    ("/pooling", {"input": "some code"}),
]


def received(response: Any) -> dict[str, Any]:
    return json.loads(response.json()["body"])


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_every_endpoint_is_routed_by_its_first_user_turn(
    server: Any, router: Any, path: str, body: dict[str, Any]
) -> None:
    response = server.post(path, {"model": "auto", **body})
    assert router.routed == ["some code"]
    assert received(response) == {"model": "code", **body}
    assert response.headers["x-traitroute-adapter"] == "code"
    assert response.headers["x-traitroute-profile"] == "7"


RESULT = {"type": "function_call_output", "call_id": "c", "output": "code"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:code"}}
TOOL_RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "code"}
WORDLESS = [
    ("/v1/chat/completions", {"messages": [{"role": "system", "content": "code"}]}),
    ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "code"}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [IMAGE]}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": None}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": ""}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user"}]}),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "tool", "tool_call_id": "t", "content": "code"}]},
    ),
    ("/v1/completions", {"prompt": [1, 2, 3]}),
    ("/v1/completions", {"prompt": [[1, 2], [3]]}),
    ("/v1/completions", {"prompt": ""}),
    ("/v1/completions", {"prompt_embeds": "AAAA"}),
    ("/v1/completions", {"prompt": "", "prompt_embeds": ["AAAA"]}),
    ("/v1/responses", {"input": [RESULT], "previous_response_id": "r"}),
    ("/v1/responses", {"input": [], "previous_response_id": "r"}),
    ("/v1/responses", {"prompt": {"id": "code"}}),
    (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "code"}]}]},
    ),
    ("/v1/messages", {"messages": [{"role": "user", "content": [TOOL_RESULT]}], "system": "code"}),
    ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": [TOOL_RESULT]}]}),
    ("/v1/embeddings", {"input": [[1, 2], [3]]}),
    ("/v1/embeddings", {"messages": [{"role": "user", "content": [IMAGE]}]}),
    ("/pooling", {"data": {"code": 1}}),
    ("/tokenize", {"prompt": "?"}),
]


@pytest.mark.parametrize(("path", "body"), WORDLESS)
def test_a_request_without_words_is_for_base_and_says_why(
    server: Any, router: Any, state: ServerState, path: str, body: dict[str, Any]
) -> None:
    response = server.post(path, {"model": "auto", **body})
    assert received(response) == {"model": "tiny", **body}
    assert response.headers["x-traitroute-adapter"] == "base"
    assert response.headers["x-traitroute-reason"].startswith("no-text: ")
    assert state.counts == {"no-text": 1}
    assert router.routed == []


@pytest.mark.parametrize(("path", "body"), WORDLESS)
def test_a_request_without_words_is_for_its_sessions_adapter(server: Any, path: str, body: dict[str, Any]) -> None:
    mine = {"x-traitroute-session": "mine"}
    server.chat("?", headers=mine)
    server.chat("some code", headers=mine)
    response = server.post(path, {"model": "auto", **body}, mine)
    assert response.headers["x-traitroute-adapter"] == received(response)["model"] == "code"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"messages": "code"}),
        ("/v1/chat/completions", {"messages": ["code"]}),
        ("/v1/chat/completions", {"messages": [{}]}),
        ("/v1/chat/completions", {"messages": [{"role": 1}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": 1}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [1]}]}),
        ("/v1/completions", {"prompt": []}),
        ("/v1/completions", {"prompt": {}}),
        ("/v1/completions", {"prompt": None}),
        ("/v1/responses", {"input": []}),
        ("/v1/responses", {"instructions": "code"}),
        ("/v1/messages", {"system": "code"}),
        ("/v1/embeddings", {"input": 1.5}),
        ("/pooling", {}),
    ],
)
def test_a_malformed_body_is_refused_with_the_field_to_mend(server: Any, path: str, body: dict[str, Any]) -> None:
    response = server.post(path, {"model": "auto", **body})
    assert response.status_code == 400
    if path != "/v1/messages":
        assert response.json()["error"]["param"] in {"messages", "prompt", "input"}


def test_anthropic_clients_get_errors_in_their_own_form(server: Any) -> None:
    response = server.post("/v1/messages", {"model": "auto"})
    assert response.status_code == 400
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_named_adapter_is_loaded_at_every_endpoint(server: Any, state: Any) -> None:
    server.post("/v1/messages", {"model": "code", "messages": []})
    assert state.loader.loaded == ["code"]


SAGEMAKER = "X-Amzn-SageMaker-Adapter-Identifier"


@pytest.mark.parametrize("asked_in", [SAGEMAKER, "x-traitroute-model"])
@pytest.mark.parametrize(("text", "name"), [("some code", "code"), ("hello", "tiny")])
def test_invocations_are_asked_and_told_in_headers(
    server: Any, state: ServerState, asked_in: str, text: str, name: str
) -> None:
    state.invocations_header = SAGEMAKER
    body = b'{ "model":"x", "messages":[{"role":"user","content":"%s"}] }' % text.encode()
    response = server.post("/invocations", body, {asked_in: "auto"})
    assert response.json()["headers"][SAGEMAKER.lower()] == name
    assert response.json()["body"].encode() == body
    assert "x-traitroute-model" not in response.json()["headers"]
    assert response.headers["x-traitroute-adapter"] == name.replace("tiny", "base")


def test_an_adapter_named_to_invocations_is_loaded(server: Any, state: Any) -> None:
    state.invocations_header = SAGEMAKER
    response = server.post("/invocations", {"prompt": "a"}, {"x-traitroute-model": "cook"})
    assert state.loader.loaded == ["cook"]
    assert response.json()["headers"][SAGEMAKER.lower()] == "cook"


@pytest.mark.parametrize("header", ["", SAGEMAKER])
def test_invocations_that_ask_for_nothing_are_left_alone(server: Any, state: ServerState, header: str) -> None:
    state.invocations_header = header
    asked = {} if header else {"x-traitroute-model": "auto"}
    response = server.post("/invocations", {"model": "auto", "prompt": "code"}, asked)
    assert received(response)["model"] == "auto"
    assert "x-traitroute-adapter" not in response.headers
