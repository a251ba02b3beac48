"""What the HTTP side of our own servers does with clients that send too much, too slowly, or read nothing."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

pytest.importorskip("uvicorn", reason="needs it: pip install 'traitroute[gateway]'")

from traitroute.serving.http.server import HEAD_BYTES, TICK_S, Limits
from traitroute.serving.vllm import free_port

from ...servers import serving

SHORT = Limits(request_s=1, rate=10_000, unread_s=2, connections=64)
"""Limits that a test can wait for."""
SLACK_S = 3 * TICK_S
HALF = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-a: "
BODY = b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"


class App:
    """Reads bodies at /read, refuses them unread at /refuse, streams at /stream for `streamed_s`, floods at /flood."""

    def __init__(self) -> None:
        self.streamed_s = 0.0
        self.left, self.done = threading.Event(), threading.Event()
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/read":
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.left.set()
                    return
                more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 401 if path == "/refuse" else 200})
        until = time.monotonic() + self.streamed_s
        while path == "/stream" and time.monotonic() < until:
            await self._part(send, b"data: 1\n\n")
            await asyncio.sleep(0.2)
        while path == "/flood" and self.sent < 64 * 2**20:
            await self._part(send, b"x" * 65536)
            self.sent += 65536
        await send({"type": "http.response.body", "body": b"ok"})
        self.done.set()

    async def _part(self, send: Any, body: bytes) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": True})


Connect = Callable[..., socket.socket]


@contextmanager
def running(app: Any, limits: Limits) -> Iterator[int]:
    """Serve the app from a thread; its port."""
    with serving(app, limits=limits, lifespan="off") as url:
        yield int(url.rpartition(":")[2])


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def port(app: App) -> Iterator[int]:
    with running(app, SHORT) as port:
        yield port


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    """Open a connection that has sent something."""
    with ExitStack() as stack:

        def opened(sent: bytes = b"") -> socket.socket:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            connection.sendall(sent)
            return connection

        yield opened


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Status and error of the answer, when the server has closed."""
    heard = b""
    while part := connection.recv(65536):
        heard += part
    head, _, body = heard.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, json.loads(body)["error"] if body else None


def read_chunks(connection: socket.socket) -> None:
    """Read an answer to its last chunk."""
    heard = b""
    while not heard.endswith(b"0\r\n\r\n"):
        heard += connection.recv(65536)


def drip(connection: socket.socket, part: bytes, every_s: float) -> float:
    """Send a part again and again until the server closes; the seconds until then."""
    start = time.monotonic()
    connection.settimeout(every_s)
    while time.monotonic() - start < 20:
        try:
            connection.sendall(part)
            if not connection.recv(65536):
                break
        except TimeoutError:
            pass
        except OSError:
            break
    return time.monotonic() - start


def healthy(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=10).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-a: a\r\n" * 10_000 + b"\r\n",
    ],
    ids=["url", "header", "headers"],
)
def test_a_head_that_is_too_long_is_refused(connect: Connect, head: bytes) -> None:
    status, error = answer(connect(head))
    assert (status, error["code"]) == (431, 431)
    assert str(HEAD_BYTES) in error["message"]


def test_a_head_without_end_is_refused_before_it_ends(connect: Connect) -> None:
    assert answer(connect(HALF + b"a" * 2 * HEAD_BYTES))[0] == 431


def test_what_is_not_http_is_refused_in_openais_form(connect: Connect) -> None:
    status, error = answer(connect(b"\x16\x03\x01 hello\r\n\r\n"))
    assert (status, error["type"]) == (400, "invalid_request_error")


def test_half_a_head_is_given_up(connect: Connect) -> None:
    start = time.monotonic()
    assert answer(connect(HALF))[0] == 408
    assert SHORT.request_s - TICK_S < time.monotonic() - start < SHORT.request_s + SLACK_S


def test_a_head_that_trickles_is_given_up(connect: Connect) -> None:
    assert drip(connect(HALF), b"a", 0.3) < SHORT.request_s + SLACK_S


def test_a_connection_that_asks_nothing_is_closed_without_a_word(connect: Connect) -> None:
    assert answer(connect()) == (0, None)


def test_half_a_request_after_a_whole_one_is_given_up(connect: Connect) -> None:
    connection = connect(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
    read_chunks(connection)
    connection.sendall(HALF)
    assert answer(connection)[0] == 408


def test_a_body_that_does_not_come_is_given_up_and_the_app_told(app: App, connect: Connect) -> None:
    status, error = answer(connect(BODY + b"a" * 10))
    assert (status, error["message"]) == (408, "the request came too slowly: send it at once")
    assert app.left.wait(5)


@pytest.mark.parametrize("path", [b"/read", b"/refuse"])
def test_a_body_that_trickles_is_given_up(connect: Connect, path: bytes) -> None:
    connection = connect(BODY.replace(b"/read", path))
    assert drip(connection, b"a" * 10, 0.2) < SHORT.request_s + SLACK_S


def test_a_body_that_nobody_waited_for_gives_the_next_request_no_time(connect: Connect) -> None:
    connection = connect(BODY.replace(b"/read", b"/refuse"))
    read_chunks(connection)
    connection.sendall(b"a" * 100_000)
    time.sleep(0.2)
    assert drip(connection, b"a", 0.3) < SHORT.request_s + SLACK_S


def test_half_a_head_request_is_given_up_and_the_server_lives(port: int, connect: Connect) -> None:
    half = connect(BODY.replace(b"POST", b"HEAD"))
    assert half.recv(65536).startswith(b"HTTP/1.1 408")
    assert healthy(port)


@pytest.mark.slow
def test_a_body_that_comes_steadily_is_waited_for(connect: Connect) -> None:
    connection = connect(BODY)
    for _ in range(10):
        time.sleep(0.3)
        connection.sendall(b"a" * 10_000)
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
def test_a_stream_outlives_every_limit(app: App, port: int) -> None:
    app.streamed_s = 4 * SHORT.request_s
    with httpx.stream("GET", f"http://127.0.0.1:{port}/stream", trust_env=False) as response:
        parts = list(response.iter_raw())
    assert parts[-1].endswith(b"ok")


@pytest.mark.slow
@pytest.mark.parametrize("reads", [False, True])
def test_only_who_reads_nothing_is_cut_off(app: App, connect: Connect, reads: bool) -> None:
    connection = connect(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
    until = time.monotonic() + SHORT.unread_s + SLACK_S
    time.sleep(0.5)
    assert 0 < app.sent < 32 * 2**20
    while time.monotonic() < until:
        time.sleep(0.1)
        if reads:
            connection.recv(2**18)
    # Nothing holds up the app any more once its client is gone.
    assert app.done.wait(0.5) is not reads


@pytest.mark.slow
def test_a_body_in_tiny_chunks_holds_up_nobody(port: int, connect: Connect) -> None:
    """A second and more when all that one read brings was parsed in one go."""
    attack = connect(BODY.replace(b"content-length: 100000", b"transfer-encoding: chunked"))
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            attack.sendall(b"1\r\nx\r\n" * 10_000)

    sending = threading.Thread(target=send)
    sending.start()
    with httpx.Client(trust_env=False, timeout=20) as client:
        waits = [client.get(f"http://127.0.0.1:{port}/health").elapsed for _ in range(9)]
    over.set()
    sending.join()
    assert sorted(waits)[4].total_seconds() < 0.5


@pytest.mark.slow
def test_half_requests_shut_nobody_out(port: int, connect: Connect) -> None:
    """Many more than there may be connections."""
    kinds = [HALF, BODY, b"", b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"]
    for i in range(5 * SHORT.connections):
        connect(kinds[i % len(kinds)])
        if i % 16 == 0:
            assert healthy(port)
    assert healthy(port)


def test_half_requests_hold_up_no_stop() -> None:
    with ExitStack() as stack:
        with running(App(), Limits()) as port:
            for half in (HALF, BODY, b""):
                connection = socket.create_connection(("127.0.0.1", port), 20)
                stack.enter_context(connection).sendall(half)
            assert healthy(port)
            start = time.monotonic()
        assert time.monotonic() - start < 5


@pytest.mark.slow
def test_requests_under_way_make_no_room(app: App, port: int, connect: Connect) -> None:
    app.streamed_s = 3.0
    streams = [connect(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n") for _ in range(SHORT.connections - 1)]
    for stream in streams:
        assert stream.recv(65536).startswith(b"HTTP/1.1 200")
    refused = connect(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    assert refused.recv(65536).startswith(b"HTTP/1.1 503")
    for stream in streams:
        read_chunks(stream)
    assert healthy(port)


FEW_FILES = """
import resource, sys
from traitroute.serving.http.server import serve_app

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
serve_app(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", lifespan="off")
"""


@pytest.mark.slow
def test_a_server_with_few_files_answers_and_recovers() -> None:
    port = free_port()
    with (
        subprocess.Popen([sys.executable, "-c", FEW_FILES, str(port)]) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.terminate)
        connect_within(port, 30)
        with ExitStack() as attack:
            for _ in range(400):
                half = socket.create_connection(("127.0.0.1", port), 20)
                attack.enter_context(half).sendall(HALF)
            assert healthy(port)
        assert healthy(port)


def connect_within(port: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)
