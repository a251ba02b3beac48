"""What a server sees of its own answers, whole and streamed, without keeping any text."""

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from traitroute.adapters import FeedbackSource, Registry
from traitroute.serving.experiment import Experiment
from traitroute.serving.judge import LONGEST
from traitroute.serving.middleware import RoutingMiddleware, outcomes
from traitroute.serving.middleware.outcomes import Answer, Outcomes
from traitroute.serving.profile_snapshot import DecisionToken
from traitroute.serving.state import ServerState

ANSWERED, FORMAT = FeedbackSource.ANSWERED, FeedbackSource.FORMAT
JSON = {"type": "json_object"}


def whole(content: Any, finish: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    return json.dumps({"choices": [choice]}).encode()


def streamed(*parts: str, finish: Any = "stop") -> bytes:
    chunks = [{"index": 0, "delta": {"role": "assistant", "content": ""}}]
    chunks += [{"index": 0, "delta": {"content": part}} for part in parts]
    chunks += [{"index": 0, "delta": {}, "finish_reason": finish}]
    events = [json.dumps({"choices": [chunk]}) for chunk in chunks]
    return "".join(f"data: {event}\r\n\r\n" for event in [*events, '{"choices": []}', "[DONE]"]).encode()


def judged(body: bytes, *, stream: bool = False, asked: Any = "json_object", at_once: int = 7) -> Any:
    answer = Answer(streamed=stream, asked=asked)
    for start in range(0, len(body), at_once):
        answer.feed(body[start : start + at_once])
    return answer.judge()


@pytest.mark.parametrize(
    ("body", "answered", "kept"),
    [
        (whole('{"a": 1}'), 1, 1),
        (whole(' {"a": [1e999, 9]}\n'), 1, 1),
        (whole('Sure! {"a": 1}'), 1, 0),
        (whole('{"a": 1', "length"), 0, 0),
        (whole('{"a": NaN}'), 1, 0),
        (whole("[1]"), 1, 0),
        (whole("[" * 90_000), 1, 0),
        (whole("  "), 0, 0),
        (whole(None), 0, 0),
        (whole('{"a": 1}', "content_filter"), 0, 1),
        (whole("", refusal="I would rather not"), 0, 0),
        (whole(None, "tool_calls", tool_calls=[{"id": "1"}]), 1, None),
    ],
)
def test_an_answer_is_one_and_keeps_its_format(body: bytes, answered: float, kept: float | None) -> None:
    found = judged(body, at_once=50_000)
    assert found == {ANSWERED: answered} | ({} if kept is None else {FORMAT: kept})


def test_any_json_will_do_where_a_schema_is_asked_for() -> None:
    assert judged(whole("[1]"), asked="json_schema")[FORMAT] == 1


def test_the_format_of_what_was_not_asked_for_is_not_judged() -> None:
    assert judged(whole("[1]"), asked=None) == {ANSWERED: 1}


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        ({"response_format": JSON}, "json_object"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "json_schema"),
        ({"structured_outputs": {"choice": ["yes", " no "]}}, frozenset({"yes", "no"})),
        ({"guided_choice": ["yes", 1]}, frozenset({"yes", "1"})),
        ({"structured_outputs": {"choice": []}, "response_format": JSON}, "json_object"),
        ({"structured_outputs": {"choice": "yes"}}, None),
        ({"structured_outputs": None, "response_format": "json_object"}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"messages": [{"role": "user", "content": "Options: yes / no"}]}, None),
    ],
)
def test_a_format_is_what_the_request_itself_asks_for(request_: dict[str, Any], asked: Any) -> None:
    assert outcomes.asked_format(request_) == asked


def test_an_answer_is_one_of_the_options_or_not() -> None:
    options = frozenset({"yes", "no"})
    assert [judged(whole(text), asked=options)[FORMAT] for text in ("yes", "no\n", "Yes", "yes or no", "")] == [
        1,
        1,
        0,
        0,
        0,
    ]
    assert judged(streamed("y", "es"), stream=True, asked=options)[FORMAT] == 1
    assert judged(streamed("y", finish="length"), stream=True, asked=options) == {ANSWERED: 0, FORMAT: 0}


def test_streams_are_judged_however_they_are_cut() -> None:
    for at_once in (1, 7, 10_000):
        assert judged(streamed('{"a":', " 1}"), stream=True, at_once=at_once) == {ANSWERED: 1, FORMAT: 1}
        assert judged(streamed('{"a":', finish="length"), stream=True, at_once=at_once) == {ANSWERED: 0, FORMAT: 0}


def test_completions_and_several_choices_count_by_their_mean() -> None:
    choices = [{"index": i, "text": text, "finish_reason": "stop"} for i, text in enumerate(['{"a": 1}', "no", ""])]
    found = judged(json.dumps({"choices": choices}).encode())
    assert found == {ANSWERED: pytest.approx(2 / 3), FORMAT: pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b'{"error": "x"}',
        b'{"choices": 3}',
        b'{"choices": []}',
        b'{"choices": [[]]}',
        whole("x", None),
        whole("x", "abort"),
        whole("x", {"type": "stop"}),
        whole([{"type": "text", "text": "x"}]),
        whole({"a": 1}),
        b"[" * 200_000,
        json.dumps({"choices": [{"index": i, "text": "x", "finish_reason": "stop"} for i in range(99)]}).encode(),
        json.dumps({"choices": [{"index": [], "text": "x", "finish_reason": "stop"}]}).encode(),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_whole_answer_is_not_judged(body: bytes, stream: bool) -> None:
    assert judged(b"data: " + body if stream else body, stream=stream, at_once=50_000) == {}


def test_an_error_in_a_stream_is_not_judged() -> None:
    assert judged(streamed("a") + b'data: {"error": {"message": "the engine died"}}\n', stream=True) == {}


def test_long_answers_are_held_in_part_only() -> None:
    assert judged(whole("x" * outcomes.MOST_CHARACTERS), at_once=9999) == {}
    answer = Answer(streamed=True, asked="json_object")
    for _ in range(300):
        answer.feed(streamed("x" * 2000))
    assert sum(len(part) for said in answer._choices.values() for part in said.text) <= outcomes.MOST_CHARACTERS
    assert answer.judge() == {ANSWERED: 1}
    endless = Answer(streamed=True, asked=None)
    for _ in range(50):
        endless.feed(b"x" * 100_000)
    assert len(endless._rest) <= outcomes.MOST_CHARACTERS + 100_000
    assert endless.judge() == {}


class Skills:
    """Signs tokens."""

    def token(self, decision: Any, adapter: str | None, gain: float, *, entry: Any, **drawn: Any) -> str:
        return replace(DecisionToken.of(adapter, gain, 0.1, 1, "f" * 64), **drawn).sign(b"key")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.create(tmp_path / "registry.db") as opened:
        yield opened


Answering = Callable[[Request], Response]


@pytest.fixture
def ask(state: ServerState, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Ask `auto` of an app that answers in a given way, and return when its outcomes are written."""
    monkeypatch.setattr(outcomes, "WRITE_EVERY_S", 0.0)
    skills: Any = Skills()

    def asked(answer: Answering, *, watched: str = "format,answered", ends: bool = False, **body: Any) -> Any:
        from starlette.testclient import TestClient

        monkeypatch.setenv("TRAITROUTE_OUTCOMES", watched)
        state.experiment, state.budget_s = Experiment.from_environment(), 10.0
        state.snapshot = replace(state.snapshot, skills=skills, location=registry.location)

        async def chat(request: Request) -> Response:
            return answer(request)

        paths = ("/v1/chat/completions", "/v1/embeddings")
        routing = RoutingMiddleware(Starlette(routes=[Route(p, chat, methods=["POST"]) for p in paths]), state=state)
        path = body.pop("path", paths[0])
        given = {"model": "auto", "messages": [{"role": "user", "content": "code"}]} | body
        response = TestClient(routing, raise_server_exceptions=False).post(path, json=given)
        routing.outcomes.end() if ends else routing.outcomes.flush()
        return response

    return asked


def json_answer(_: Request) -> Response:
    return Response(whole('{"secret words": 1}'), media_type="application/json")


def stream_answer(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for line in streamed('{"secret words"', ": 1").splitlines(keepends=True):
            yield line

    return StreamingResponse(parts(), media_type="text/event-stream")


def found(registry: Registry) -> dict[str, float | None]:
    return {str(row.source): row.reward for row in registry.feedback(source=None)}


def test_outcomes_of_an_answer_are_kept_with_its_token_and_without_its_text(
    ask: Callable[..., Any], registry: Registry
) -> None:
    response = ask(json_answer, response_format=JSON)
    assert found(registry) == {"answered": 1, "format": 1}
    rows = registry.feedback(source=None)
    assert {row.token for row in rows} == {response.headers["x-traitroute-decision-token"]}
    assert {(row.adapter, row.profile_version, row.reporter) for row in rows} == {("code", 1, None)}
    stored = b"".join(f.read_bytes() for f in registry.path.parent.glob("registry.db*"))
    assert b"secret words" not in stored
    assert sha256(response.content).hexdigest().encode() not in stored


def test_a_process_that_ends_writes_what_waits(
    ask: Callable[..., Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "WRITE_EVERY_S", 1000.0)
    ask(json_answer, ends=True)
    assert found(registry) == {"answered": 1.0}


def test_a_stream_is_passed_on_as_it_is_and_judged(ask: Callable[..., Any], registry: Registry) -> None:
    response = ask(stream_answer, response_format=JSON, stream=True)
    assert response.content == streamed('{"secret words"', ": 1")
    assert found(registry) == {"answered": 1, "format": 0}


@pytest.mark.parametrize("watched", ["", "answered", "format"])
def test_each_outcome_is_opted_into(ask: Callable[..., Any], registry: Registry, watched: str) -> None:
    ask(json_answer, watched=watched, response_format=JSON)
    assert found(registry) == ({watched: 1} if watched else {})


def test_what_the_router_did_not_choose_is_not_judged(ask: Callable[..., Any], registry: Registry) -> None:
    for body in ({"model": "code"}, {"messages": [{"role": "user", "content": "broken"}]}):
        ask(json_answer, **body)
    ask(json_answer, path="/v1/embeddings", input="code")
    ask(lambda _: JSONResponse({"error": {"message": "no"}}, status_code=500))
    ask(lambda _: Response(whole("x"), media_type="application/json", headers={"content-encoding": "br"}))
    assert found(registry) == {}


def test_a_registry_that_cannot_be_written_costs_no_answer(
    ask: Callable[..., Any], registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.path.rename(registry.path.with_name("gone.db"))
    assert ask(json_answer).status_code == 200
    assert "outcomes of answers are not kept" in caplog.text


@dataclass
class StandIn:
    """A judge that gives the grade `says`, and keeps what it was asked."""

    url: str
    says: str = "[[5]]"
    status: int = 200
    asked: list[str] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            judge.asked.append(body["messages"][0]["content"])
            judge.keys.add(self.headers["authorization"])
            reply = whole(judge.says) if judge.status == 200 else whole(f"no: {self.headers['authorization']}")
            self.send_response(judge.status)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    judge = StandIn(f"http://127.0.0.1:{server.server_port}/v1")
    settings = {"URL": judge.url, "MODEL": "strict", "API_KEY": "sk-very-secret", "SHARE": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"TRAITROUTE_JUDGE_{name}", value)
    yield judge
    server.shutdown()
    server.server_close()
    thread.join()


def plain_stream(_: Request) -> Response:
    return Response(streamed("My ", "answer"), media_type="text/event-stream")


@pytest.mark.parametrize(("says", "reward"), [("[[5]]", 1), ("It is [[1]], or rather [[ 2 ]].", 0.25), ("[[9]]", None)])
def test_a_judge_grades_what_was_asked_and_answered(
    ask: Callable[..., Any], registry: Registry, stand_in: StandIn, says: str, reward: float | None
) -> None:
    stand_in.says = says
    ask(plain_stream, watched="judge", messages=[{"role": "user", "content": [{"type": "text", "text": "code"}]}])
    assert found(registry) == ({} if reward is None else {"judge": reward})
    assert stand_in.keys == {"Bearer sk-very-secret"}
    assert "[Request]\nuser: code\n\n[Answer]\nMy answer\n\n[End]" in stand_in.asked[0]
    stored = b"".join(f.read_bytes() for f in registry.path.parent.glob("registry.db*"))
    assert b"My answer" not in stored


def test_what_says_nothing_is_not_shown_to_the_judge(ask: Callable[..., Any], stand_in: StandIn) -> None:
    for body in (whole(" "), whole(None, "tool_calls", tool_calls=[{"id": "1"}]), whole("x", "content_filter")):
        ask(lambda _, body=body: Response(body, media_type="application/json"), watched="judge")
    assert stand_in.asked == []


def test_a_judge_sees_its_share_and_only_so_much_of_a_text(
    ask: Callable[..., Any], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAITROUTE_JUDGE_SHARE", "0")
    ask(json_answer, watched="judge,answered")
    assert stand_in.asked == []
    monkeypatch.setenv("TRAITROUTE_JUDGE_SHARE", "1")
    long = [{"role": "user", "content": f"code {'a' * 50_000} the end"}]
    ask(lambda _: Response(whole("b" * 50_000), media_type="application/json"), watched="judge", messages=long)
    (seen,) = stand_in.asked
    assert len(seen) < 3.2 * LONGEST and "a the end\n" in seen


@pytest.mark.parametrize("status", [401, 503])
def test_a_judge_that_is_away_or_refuses_costs_one_line(
    ask: Callable[..., Any], registry: Registry, stand_in: StandIn, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    stand_in.status = status
    assert ask(json_answer, watched="judge,answered").status_code == 200
    assert found(registry) == {"answered": 1}
    assert "answers are not graded: the judge 'strict'" in caplog.text
    assert "sk-very-secret" not in caplog.text


def test_so_many_are_judged_an_hour_and_no_more() -> None:
    now = [0.0]
    watch = Outcomes(frozenset({ANSWERED}), clock=lambda: now[0])
    given: Any = (None, "/v1/completions", {}, "token", None)
    send: Any = object()
    taken = [watch.judging(send, *given[1:]) is not send for _ in range(500)]
    assert sum(taken) == outcomes.BURST and taken[0]
    for _ in range(24 * 60):
        now[0] += 60.0
        taken += [watch.judging(send, *given[1:]) is not send for _ in range(100)]
    assert sum(taken) == pytest.approx(24 * outcomes.HOURLY + outcomes.BURST, abs=2)
