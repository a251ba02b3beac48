"""What passes between client and upstream, byte by byte and second by second."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import CHAT, Gateway, RawServer, Serve, Upstream, ask, eventually, raw

STREAM = {"model": "base", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


def headers_seen(upstream: Upstream) -> dict[str, str]:
    return dict(upstream.requests[-1]["headers"])


def test_events_arrive_one_by_one(gateway: Gateway, serve: Serve) -> None:
    client = gateway(serve(Upstream()).url)
    times, chunks = [], []
    with client.stream("POST", CHAT, json=STREAM) as response:
        assert response.headers["content-type"] == "text/event-stream"
        for chunk in response.iter_raw():
            times.append(time.monotonic())
            chunks.append(chunk)
    assert b"".join(chunks).count(b"data:") == 6
    # Five pauses of a tenth of a second lie between the first and the last.
    assert times[-1] - times[0] > 0.3
    assert len(chunks) >= 5


def test_a_big_body_arrives_whole(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    asked = {**STREAM, "stream": False, "text": "ü 0" * 2**20}
    response = gateway(upstream.url).post(CHAT, json=asked)
    assert response.status_code == 200
    assert json.loads(upstream.requests[-1]["body"]) == {**asked, "model": "tiny"}


def test_a_body_beyond_the_limit_is_refused_and_not_handed_on_unread(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    body = json.dumps({"model": "tiny", "query": "x" * 9 * 2**20})
    assert gateway(upstream.url).post("/v1/rerank", content=body).status_code == 413
    assert upstream.requests == []


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_the_request_upstream(gateway: Gateway, serve: Serve, stream: bool) -> None:
    upstream = serve(Upstream())
    client = gateway(upstream.url)
    if stream:
        with client.stream("POST", CHAT, json=STREAM) as response:
            next(response.iter_raw())
    else:
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json={"model": "tiny", "play": "hang"}, timeout=0.5)
    assert upstream.aborted.wait(5)
    eventually(lambda: client.get("/health").json()["upstreams"][0]["outstanding"] == 0)


def test_a_slow_reader_slows_the_upstream_down(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    client = gateway(upstream.url)
    with client.stream("POST", CHAT, json={"model": "tiny", "play": "flood"}) as response:
        chunks = response.iter_raw()
        next(chunks)
        eventually(lambda: standing_still(upstream))
        held = upstream.flooded
        # What the sockets and two servers' write buffers hold, of the 64 MiB to come.
        assert held < 24 * 2**20
        total = sum(len(chunk) for chunk in chunks)
    assert total > 60 * 2**20


def standing_still(upstream: Upstream) -> bool:
    before = upstream.flooded
    time.sleep(0.3)
    return 0 < before == upstream.flooded


def test_headers_path_and_query_pass_and_hop_by_hop_headers_do_not(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    client = gateway(upstream.url)
    sent = {
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "te": "trailers",
        "proxy-authorization": "secret",
        "authorization": "Bearer mine",
        "x-request-id": "7",
        "accept-encoding": "identity",
    }
    response = client.post(f"{CHAT}?x=%20y&x=2", json={"model": "tiny"}, headers=sent)
    assert upstream.requests[-1]["method"] == "POST"
    assert upstream.requests[-1]["target"] == f"{CHAT}?x=%20y&x=2".encode()
    seen = headers_seen(upstream)
    assert seen.keys().isdisjoint({"x-hop", "te", "proxy-authorization"})
    assert (seen["authorization"], seen["x-request-id"]) == ("Bearer mine", "7")
    assert seen["host"] == urlsplit(upstream.url).netloc
    assert response.headers["x-kept"] == "1"
    assert "x-private" not in response.headers
    assert "x-traitroute-adapter" not in response.headers


@pytest.mark.slow
def test_which_pages_may_read_answers_is_the_gateways_to_say(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    named, page = gateway(upstream.url, origins=("https://app.example",)), {"model": "tiny"}
    for client in (named, gateway(upstream.url)):
        for origin in ("https://app.example", "https://other.example"):
            asked = {"origin": origin, "access-control-request-method": "POST"}
            told = client.post(CHAT, json=page, headers=asked)
            assert told.status_code == 200
            welcome = client is named and origin == "https://app.example"
            assert told.headers.get("access-control-allow-origin") == (origin if welcome else None)
            assert headers_seen(upstream).keys().isdisjoint(asked)


def test_nothing_is_added_to_a_request(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    client = gateway(upstream.url)
    raw(client, b"GET /v1/responses/resp_1 HTTP/1.1\r\nhost: x\r\n\r\n")
    assert [name for name, _ in upstream.requests[-1]["headers"]] == ["host"]


def test_an_upstream_url_may_have_a_path(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    upstream.status = 404
    client = gateway(f"{upstream.url}/openai")
    client.get("/v1/responses/resp_1?stream=true")
    assert upstream.requests[-1]["target"] == b"/openai/v1/responses/resp_1?stream=true"


def test_without_the_key_nothing_is_routed_or_forwarded(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    client = gateway(upstream.url, key="sesame", upstream_key="theirs")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "sesame"}):
        response = ask(client, "how long do I boil eggs", headers=headers)
        assert response.status_code == 401
        assert "x-traitroute-adapter" not in response.headers
        assert client.get("/v1/models", headers=headers).status_code == 401
    assert upstream.requests == []
    assert client.get("/health").json() == {"status": "ok"}


def test_an_upstream_is_given_its_own_key_and_never_the_gateways(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    mine = {"authorization": "Bearer sesame"}
    ask(gateway(upstream.url, key="sesame"), "hi", headers=mine)
    assert "authorization" not in headers_seen(upstream)
    ask(gateway(upstream.url, key="sesame", upstream_key="theirs"), "hi", headers=mine)
    assert headers_seen(upstream)["authorization"] == "Bearer theirs"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["model", "messages", "prompt", "input", "stream", "traitroute", "n"])
MODELS = st.sampled_from(["auto", "base", "cook", "", "tiny", "nothing"]) | JSON
BODIES = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda model, rest: json.dumps({**rest, "model": model}).encode(),
        MODELS,
        st.dictionaries(FIELDS, JSON, max_size=4),
    ),
)
PATHS = st.sampled_from([CHAT, "/v1/completions", "/v1/embeddings", "/v1/other", "//v1/%2e%2e/x?%00"])


@pytest.mark.slow
def test_no_request_breaks_the_gateway(gateway: Gateway, serve: Serve) -> None:
    client = gateway(serve(Upstream("cook")).url)

    @given(path=PATHS, body=BODIES, method=st.sampled_from(["POST", "PUT", "GET", "DELETE"]))
    @settings(max_examples=150)
    def check(path: str, body: bytes, method: str) -> None:
        target = httpx.URL(client.base_url).copy_with(raw_path=path.encode())
        assert client.request(method, target, content=body).status_code < 500

    check()


class Breaker(RawServer):
    """A server that lists its models, and breaks off every other request once it has read it."""

    def __init__(self, broken: bytes) -> None:
        self.received: list[bytes] = []
        self._broken = broken
        super().__init__()
        self.url = f"http://{self.address}"

    def answer(self, request: bytes) -> bytes:
        if request.startswith(b"GET /v1/models"):
            body = json.dumps({"data": [{"id": "tiny"}]}).encode()
            head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            return head % len(body) + body
        self.received.append(request)
        return self._broken


def breaker(stack: ExitStack, answer: bytes = b"") -> Breaker:
    server = Breaker(answer)
    stack.callback(server.close)
    return server


def test_what_was_sent_is_never_sent_again(gateway: Gateway, stack: ExitStack) -> None:
    first, second = breaker(stack), breaker(stack)
    response = ask(gateway(first.url, second.url), "hi", model="base")
    assert response.status_code == 502
    assert "broke off before it answered" in response.json()["error"]["message"]
    assert len(first.received) + len(second.received) == 1


def test_an_answer_that_breaks_off_is_not_made_to_look_complete(gateway: Gateway, stack: ExitStack) -> None:
    broken = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
    client = gateway(breaker(stack, broken).url)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(client, "hi", model="base")


def test_no_key_and_no_request_text_reach_the_log(
    gateway: Gateway, serve: Serve, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("DEBUG", logger="traitroute")
    client = gateway(serve(Upstream()).url, upstream_key="theirs")
    ask(client, "how long do I boil eggs, dear diary", headers={"authorization": "Bearer mine"})
    assert "theirs" not in caplog.text
    assert "mine" not in caplog.text
    assert "diary" not in caplog.text
