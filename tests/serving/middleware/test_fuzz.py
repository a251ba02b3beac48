"""Whatever a request holds: never an exception, never a 5xx, and no header that contradicts the body."""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traitroute.serving.middleware.middleware import ENDPOINTS

CONSTRAINTS = ["allow", "deny", "tags", "min_gain", "explain", "session", "reroute"]
KEYS = st.text(max_size=4) | st.sampled_from(["role", "content", "text", "type", *CONSTRAINTS])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["auto", "code", "broken", "crash", "user", "text"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]) | JSON, "content": JSON})
BODY = st.fixed_dictionaries(
    {"model": st.sampled_from(["auto", "code", "tiny"]) | JSON},
    optional={
        "messages": st.lists(TURN, max_size=4) | JSON,
        "prompt": JSON,
        "input": st.lists(TURN, max_size=3) | JSON,
        "previous_input_messages": JSON,
        "traitroute": st.dictionaries(st.sampled_from(CONSTRAINTS), JSON, max_size=3) | JSON,
    },
)
CONTENT = BODY.map(lambda body: json.dumps(body).encode()) | JSON.map(lambda body: json.dumps(body).encode())
LATIN = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=12)
HEADERS = st.dictionaries(
    st.sampled_from([f"x-traitroute-{c.replace('_', '-')}" for c in [*CONSTRAINTS, "model", "x"]]),
    LATIN | st.sampled_from(["1", "0", "code", "code,cook", "auto", "-0.5", "nan", "1e999"]),
    max_size=3,
)


def decision_path(decision_id: bytes) -> str:
    return f"/v1/decisions/{quote(decision_id)}"


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(sorted(ENDPOINTS)) | st.binary(max_size=8).map(decision_path),
    content=CONTENT | st.binary(max_size=40),
    headers=HEADERS,
    method=st.sampled_from(["POST", "POST", "GET"]),
)
def test_no_request_ends_in_a_fault_of_ours(
    server: Any, state: Any, path: str, content: bytes, headers: dict[str, str], method: str
) -> None:
    state.invocations_header = "x-amzn-sagemaker-adapter-identifier"
    raw = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    response = asyncio.run(server.request(method, path, content=content, headers=raw))
    assert response.status_code in (200, 400, 403, 404, 405)
    if response.status_code in (400, 403):
        assert response.json()["error"]["message"]
    if "x-traitroute-adapter" in response.headers and path != "/invocations":
        model = json.loads(response.json()["body"])["model"]
        assert model.replace("tiny", "base") == response.headers["x-traitroute-adapter"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "auto", "prompt": "code", "x": ' + b"9" * 5000 + b"}",
        b'{"model": "auto", "prompt": "code", "x": NaN}',
        b'\xef\xbb\xbf{"model": "auto", "prompt": "code"}',
        b'{"model": "tiny", "model": "auto", "prompt": "code"}',
        '{"model": "auto", "prompt": "code"}'.encode("utf-16"),
        b"\xff\xfe\x00",
    ],
)
def test_odd_bodies_are_answered(server: Any, body: bytes) -> None:
    assert server.post("/v1/completions", body).status_code == 200


def test_a_declared_length_beyond_the_limit_is_refused_unread(server: Any) -> None:
    for length in (str(9 * 2**20), "9" * 5000):
        response = server.post("/v1/completions", b"{}", {"content-length": length})
        assert response.status_code == 413
