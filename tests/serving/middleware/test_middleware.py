import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from traitroute.router import RoutingDecision
from traitroute.serving.middleware import RoutingMiddleware
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState

from .conftest import KeywordRouter

CHAT = "/v1/chat/completions"


async def echo(request: Request) -> Response:
    """Answers with what the app behind the middleware received."""
    body = await request.body()
    length = request.headers.get("content-length")
    return JSONResponse({"body": body.decode("latin-1"), "length": length})


async def stream(request: Request) -> Response:
    model = (await request.json())["model"]

    async def chunks() -> AsyncIterator[str]:
        for i in range(3):
            yield f"{model}{i}"

    return StreamingResponse(chunks(), media_type="text/event-stream")


def with_client(state: ServerState, use: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> httpx.Response:
    paths = [
        Route(CHAT, echo, methods=["POST"]),
        Route("/v1/completions", stream, methods=["POST"]),
    ]
    app = Starlette(routes=[*paths, Route("/v1/other", echo, methods=["POST"])])
    guarded = RoutingMiddleware(app, state=state)

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app=guarded)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await use(client)

    return asyncio.run(run())


def post(state: ServerState, content: bytes, path: str = CHAT) -> httpx.Response:
    return with_client(state, lambda client: client.post(path, content=content))


def ask(state: ServerState, text: str, model: str = "auto", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return post(state, json.dumps(body).encode())


def loaded(state: Any) -> list[str]:
    return state.loader.loaded


def received(response: httpx.Response) -> dict[str, Any]:
    return json.loads(response.json()["body"])


def test_auto_becomes_the_adapter_that_the_header_names(state: ServerState) -> None:
    response = ask(state, "code please", temperature=0.5)
    assert received(response)["model"] == response.headers["x-traitroute-adapter"] == "code"
    assert received(response)["temperature"] == 0.5
    assert response.headers["x-traitroute-gain"] == "+0.134"
    assert int(response.json()["length"]) == len(response.json()["body"])
    assert loaded(state) == ["code"]
    assert state.counts == {"adapter": 1}


def test_auto_becomes_the_base_models_first_name_where_no_adapter_is_chosen(
    state: ServerState,
) -> None:
    response = ask(state, "hello")
    assert received(response)["model"] == "tiny"
    assert response.headers["x-traitroute-adapter"] == "base"
    assert response.headers["x-traitroute-gain"] == "+0.000"


def test_a_slash_at_the_end_of_a_routed_path_changes_nothing(state: ServerState) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "code please"}]}
    response = post(state, json.dumps(body).encode(), f"{CHAT}/")
    assert response.status_code == 200
    assert response.headers["x-traitroute-adapter"] == received(response)["model"] == "code"
    # The app behind redirects as it did.
    assert post(state, b"{}", "/v1/other/").status_code == 307


def test_the_reason_is_one_short_printable_line(state: ServerState) -> None:
    reason = ask(state, "code").headers["x-traitroute-reason"]
    assert reason.startswith("chosen for code surely long")
    assert len(reason) <= 200


def test_a_stream_passes_with_headers_chunk_by_chunk(state: ServerState) -> None:
    sent: list[dict[str, Any]] = []
    body = json.dumps({"model": "auto", "prompt": "code", "stream": True}).encode()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert json.loads((await receive())["body"])["model"] == "code"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for i in range(3):
            await send({"type": "http.response.body", "body": b"%d" % i, "more_body": i < 2})
            assert sent[-1]["body"] == b"%d" % i
        assert (await receive())["type"] == "http.disconnect"

    messages = iter(
        [
            {"type": "http.request", "body": body[:5], "more_body": True},
            {"type": "http.request", "body": body[5:], "more_body": False},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    asyncio.run(RoutingMiddleware(app, state=state)(scope, receive, send))
    assert (b"x-traitroute-adapter", b"code") in sent[0]["headers"]
    assert len(sent) == 4


def test_a_completion_prompt_is_routed_too(state: ServerState) -> None:
    body = json.dumps({"model": "auto", "prompt": "some code"}).encode()
    response = post(state, body, "/v1/completions")
    assert response.text == "code0code1code2"
    assert response.headers["x-traitroute-adapter"] == "code"


@pytest.mark.parametrize(
    "body",
    [
        b'{ "model":"tiny", "messages":[] }',
        b'{"model": ["auto"]}',
        b"[1,2]",
        b"not json",
    ],
)
def test_what_is_not_ours_reaches_the_app_byte_for_byte(state: ServerState, body: bytes) -> None:
    response = post(state, body)
    assert response.json()["body"].encode("latin-1") == body
    assert "x-traitroute-adapter" not in response.headers


def test_other_paths_are_not_read(state: ServerState) -> None:
    body = json.dumps({"model": "auto", "messages": []}).encode()
    assert post(state, body, "/v1/other").json()["body"].encode() == body


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("crash", "router-error: ZeroDivisionError"),
        ("slow", "router-timeout: no choice in 50 ms"),
        ("broken", "load-failed: broken: rank 64 is greater than max_lora_rank 16"),
    ],
)
def test_doubt_means_base_and_says_why(state: ServerState, text: str, reason: str) -> None:
    response = ask(state, text)
    assert response.status_code == 200
    assert received(response)["model"] == "tiny"
    assert response.headers["x-traitroute-adapter"] == "base"
    assert response.headers["x-traitroute-reason"] == reason
    assert state.counts == {reason.partition(":")[0]: 1}


def test_a_router_error_is_logged_without_the_requests_text(
    state: ServerState, caplog: pytest.LogCaptureFixture
) -> None:
    ask(state, "crash")
    assert "ZeroDivisionError" in caplog.text
    assert "request's text" not in caplog.text


def test_auto_without_a_router_is_answered_by_base() -> None:
    response = ask(
        ServerState(base_names=("tiny",), snapshot=RegistrySnapshot(no_router="no-profile: none yet")), "code"
    )
    assert received(response)["model"] == "tiny"
    assert response.headers["x-traitroute-reason"] == "no-profile: none yet"


def test_a_named_adapter_is_loaded_and_its_request_left_alone(state: ServerState) -> None:
    response = ask(state, "hello", model="code")
    assert received(response)["model"] == "code"
    assert loaded(state) == ["code"]
    assert "x-traitroute-adapter" not in response.headers


def test_a_named_adapter_that_cannot_load_is_refused_not_replaced(state: ServerState) -> None:
    response = ask(state, "hello", model="broken")
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "model"
    assert "rank 64" in error["message"]


@pytest.mark.parametrize("body", [{"model": "auto"}, {"model": "auto", "messages": []}])
def test_auto_with_nothing_to_route_is_refused(state: ServerState, body: dict[str, Any]) -> None:
    response = post(state, json.dumps(body).encode())
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"model": "auto", "messages": ' + b"[" * 150 + b"]" * 150 + b"}",
        b'{"model": "auto", "prompt": "a", "x": ' + b'{"a":' * 600 + b"1" + b"}" * 601,
    ],
)
def test_a_body_that_nests_too_deep_is_refused(state: ServerState, body: bytes) -> None:
    response = post(state, body)
    assert response.status_code == 400
    assert "nests deeper than 100" in response.json()["error"]["message"]


def test_a_body_beyond_the_limit_is_refused(state: ServerState) -> None:
    assert post(state, b" " * (8 * 2**20 + 1)).status_code == 413


@pytest.mark.parametrize(("status", "told"), [(200, ["code"]), (302, ["code"]), (400, ["own"])])
def test_an_answer_bears_one_claim_and_an_error_none_of_ours(state: ServerState, status: int, told: list[str]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"X-Traitroute-Adapter", b"own")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app=RoutingMiddleware(app, state=state))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/completions", json={"model": "auto", "prompt": "code"})

    assert asyncio.run(run()).headers.get_list("x-traitroute-adapter") == told


class Failing:
    async def ensure(self, name: str) -> None:
        raise ConnectionError(f"{name}: the engine is gone")


def test_a_loader_that_fails_in_any_way_costs_auto_no_answer(state: ServerState) -> None:
    state.loader = Failing()
    response = ask(state, "code")
    assert received(response)["model"] == "tiny"
    assert response.headers["x-traitroute-reason"] == ("load-failed: 'code' could not be loaded: ConnectionError")


def test_a_loader_that_fails_in_any_way_refuses_a_named_adapter(state: ServerState) -> None:
    state.loader = Failing()
    response = ask(state, "hello", model="code")
    assert response.status_code == 400
    assert "'code' could not be loaded: ConnectionError" in response.json()["error"]["message"]


def test_stuck_routers_leave_the_loops_own_executor_free(server: Any, state: ServerState) -> None:
    free = threading.Event()

    class Stuck(KeywordRouter):
        def route(self, request: str, /, **options: Any) -> RoutingDecision:
            free.wait()
            return super().route(request, **options)

    async def run() -> None:
        body = b'{"model": "auto", "messages": [{"role": "user", "content": "hello"}]}'
        path = "/v1/chat/completions"
        try:
            responses = await asyncio.gather(*(server.request("POST", path, content=body) for _ in range(40)))
            assert {r.status_code for r in responses} == {200}
            late = await server.request("POST", path, content=body)
            assert late.headers["x-traitroute-reason"].startswith("router-busy: ")
            async with asyncio.timeout(60):
                await asyncio.to_thread(int)
        finally:
            free.set()

    state.snapshot = replace(state.snapshot, router=Stuck())
    asyncio.run(run())
    assert state.counts["router-timeout"] + state.counts["router-busy"] == 41
