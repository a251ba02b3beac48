"""Bodies are parsed once, within limits, and no large one stops the event loop."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from traitroute.serving.http.body import MAX_DEPTH, MAX_PARTS, REQUEST, dump, parse
from traitroute.serving.http.errors import RefusedError
from traitroute.serving.middleware import RoutingMiddleware
from traitroute.serving.state import ServerState

MIB = 2**20
CHAT = "/v1/chat/completions"


def large(part: bytes, *, model: str = "code") -> bytes:
    """Eight MiB of `part` in a list."""
    head = b'{"model":"%s","prompt":"code","x":[' % model.encode()
    return head + part * ((8 * MIB - 100) // len(part)) + b"0]}"


LARGE = {
    "lists": (large(b"[],"), 413),
    "lists in lists": (large(b"[" * 50 + b"]" * 50 + b","), 413),
    "objects": (large(b'{"a":0},'), 413),
    "keys": (
        b'{"model":"code","x":{' + b",".join(b'"%x":0' % i for i in range(700_000)) + b"}}",
        413,
    ),
    "texts": (large(b'"",'), 413),
    "integers": (large(b"12345,"), 200),
    "decimals": (large(b"0.1,"), 200),
    "long integers": (large(b"1" * 4000 + b","), 200),
    "digits": (b'{"model":"code","x":' + b"1" * (8 * MIB - 100) + b"}", 200),
    "one text": (b'{"model":"auto","prompt":"' + b"a" * (8 * MIB - 100) + b'"}', 200),
    "dots": (b'{"model":"auto","prompt":"' + b"." * (8 * MIB - 100) + b'"}', 200),
    "a name": (b'{"model":"' + b"a" * (8 * MIB - 100) + b'"}', 400),
    "a name in allow": (
        b'{"model":"auto","prompt":"a","traitroute":{"allow":["' + b"a" * (8 * MIB - 100) + b'"]}}',
        400,
    ),
}


async def longest_stall(work: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    """For how many seconds at most the event loop stands still while `work` runs, and what that returns."""
    worst, working = 0.0, True

    async def beat() -> None:
        nonlocal worst
        last = time.perf_counter()
        while working:
            await asyncio.sleep(0.001)
            worst, last = max(worst, time.perf_counter() - last), time.perf_counter()

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0.01)
    result = await work()
    await asyncio.sleep(0.005)
    working = False
    await beating
    return worst, result


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE)
def test_no_large_body_stops_the_event_loop(
    server: Any, state: ServerState, offer: Callable[..., None], kind: str
) -> None:
    body, status = LARGE[kind]
    offer(*(f"a{i:04}" for i in range(400)))

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    server.app = RoutingMiddleware(echo, state=state)
    # Other processes stop this one too, so it may try again.
    for _ in range(5):
        stall, response = asyncio.run(longest_stall(lambda: server.request("POST", "/v1/completions", content=body)))
        assert response.status_code == status
        print(f"{kind}: {1000 * stall:.0f} ms")
        if stall < 0.2:
            break
    else:
        pytest.fail("the event loop stood still for over 200 ms in each of five tries")


@pytest.mark.parametrize("part", ["[]", '{"a": 0}', '""'])
@pytest.mark.parametrize("model", ["auto", "code"])
def test_a_body_of_too_many_parts_is_refused(server: Any, part: str, model: str) -> None:
    parts = ",".join([part] * (MAX_PARTS + 1))
    body = f'{{"model": "{model}", "prompt": "code", "x": [{parts}]}}'.encode()
    response = server.post("/v1/completions", body)
    assert response.status_code == 413
    assert f"more than {MAX_PARTS} lists" in response.json()["error"]["message"]


def test_what_texts_hold_are_no_parts(server: Any) -> None:
    code = "[{\"a\\\\\": '[{\\\\'}" * 50_000
    body = {"model": "auto", "messages": [{"role": "user", "content": f"code {code}"}]}
    response = server.post(CHAT, body)
    assert response.status_code == 200
    assert json.loads(response.json()["body"])["messages"] == body["messages"]


@pytest.mark.slow
def test_a_long_conversation_and_many_tokens_are_let_through(server: Any) -> None:
    turns = [{"role": "user", "content": "code"}, {"role": "assistant", "content": "a"}] * 12_500
    assert server.post(CHAT, {"model": "auto", "messages": turns}).status_code == 200
    assert server.post("/v1/completions", {"model": "code", "prompt": list(range(10**6))}).status_code == 200


@pytest.mark.parametrize("depth", [98, 99])
@pytest.mark.parametrize("model", ["auto", "code", "tiny"])
def test_the_depth_of_every_request_is_limited(server: Any, depth: int, model: str) -> None:
    nested = "[" * depth + "]" * depth
    body = f'{{"model": "{model}", "prompt": "code", "x": [{nested}]}}'
    answered = {98: 200, 99: 400}[depth]
    assert server.post("/v1/completions", body.encode()).status_code == answered


TRICKY = st.text(st.sampled_from('[]{}"\\\\,: a\né'), max_size=6)
VALUES = st.recursive(
    st.integers() | TRICKY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRICKY, inner, max_size=4),
    max_leaves=20,
)


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@pytest.mark.slow
@settings(max_examples=300)
@given(value=VALUES, ascii_only=st.booleans())
def test_whatever_texts_hold_the_depth_is_that_of_lists_and_objects(value: Any, ascii_only: bool) -> None:
    for _ in range(MAX_DEPTH - depth(value)):
        value = [value]
    # Pieces of brackets, so that none is passed over for having few of them.
    asked = [value[0], ["]}[{" for _ in range(30)], *([[]] * 40)]
    assert parse(json.dumps(asked, ensure_ascii=ascii_only).encode()) == asked
    with pytest.raises(RefusedError, match="nests deeper"):
        parse(json.dumps([asked], ensure_ascii=ascii_only).encode())


HALVES = [
    (
        b'{"model": "auto", "messages": [{"role": "user", "content": "code \\ud83d"}]}',
        "messages.0.content",
    ),
    (
        b'{"model": "code", "messages": [{"role": "user", "content": "code \\uDE00"}]}',
        "messages.0.content",
    ),
    (
        b'{"model": "tiny", "messages": [{"role": "system", "content": [{"text": "\\ud83d "}]}]}',
        "messages.0.content.0.text",
    ),
    (b'{"model": "auto", "prompt": ["code", "\xed\xa0\xbd"]}', "prompt.1"),
    (b'{"model": "\\ud83d", "prompt": "code"}', "model"),
    (
        b'{"model": "auto", "prompt": "code", "traitroute": {"allow": ["\\ud83d"]}}',
        "traitroute.allow.0",
    ),
    (b'{"model": "auto", "prompt": "code", "user": {"\\ud83d": 1}}', "user"),
    ('{"model": "auto", "prompt": "code", "stop": "\\ud83d"}'.encode("utf-16"), "stop"),
    (b'{"model": "auto", "prompt": "code", "\\ud83d": 1}', None),
]


@pytest.mark.parametrize(("body", "param"), HALVES)
def test_half_a_character_is_refused_wherever_it_stands(server: Any, body: bytes, param: str | None) -> None:
    response = server.post(CHAT, body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert "half of a surrogate pair" in error["message"]


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "\U0001f600", "한국어 하나", "\\\\ud83d", "\\u00e9"])
def test_whole_characters_pass_however_they_are_written(server: Any, text: str) -> None:
    body = f'{{"model": "auto", "prompt": "code {text}"}}'.encode()
    response = server.post("/v1/completions", body)
    handed_on = json.loads(response.json()["body"].encode("latin-1"))
    assert handed_on == {**json.loads(body), "model": "code"}


@pytest.mark.parametrize(
    "value",
    [
        float("inf"),
        2**200,
        -(2**63),
        1e-320,
        1e22,
        -0.0,
        0.1,
        True,
        None,
        "\0\x7f\u2028",
        "é😀",
        {"a": [[], {}]},
    ],
)
def test_a_body_that_is_written_anew_says_the_same(value: Any) -> None:
    assert parse(dump({"a": value})) == {"a": value}


def test_what_is_parsed_is_there_for_the_app_behind(state: ServerState) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope.get(REQUEST), json.loads((await receive())["body"])))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    from .conftest import Server

    server = Server(state)
    server.app = RoutingMiddleware(app, state=state)
    server.chat("code", traitroute={"deny": ["cook"]}, seed=1)
    server.chat("code", model="code", seed=1)
    server.post("/v1/completions", b"[1]")
    for request, body in seen[:2]:
        assert request == body
        assert (request["model"], request["seed"], "traitroute" in request) == ("code", 1, False)
    assert seen[2] == (None, [1])


def test_parsing_refuses_before_it_parses() -> None:
    start = time.perf_counter()
    with pytest.raises(RefusedError):
        parse(b"[" * (8 * MIB))
    assert time.perf_counter() - start < 1
