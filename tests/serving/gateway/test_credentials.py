"""Whose secrets go where: a client's never to an upstream that has a key, a password never to anybody, a proxy's
neither.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from traitroute.adapters import InputError, Registry
from traitroute.serving.gateway import GatewayOptions, gateway_app, upstream_urls
from traitroute.serving.http.addresses import proxy_of, public

from .conftest import Gateway, RawServer, Serve, Upstream, ask

CLIENTS = {
    "authorization": "Bearer mine",
    "proxy-authorization": "Basic mine",
    "x-api-key": "mine",
    "api-key": "mine",
    "x-goog-api-key": "mine",
    "cookie": "session=mine",
}


@pytest.mark.parametrize("keys", [{"key": "mine"}, {"key": "mine", "upstream_key": "theirs"}])
def test_with_a_key_of_its_own_the_gateway_hands_no_credential_on(
    gateway: Gateway, serve: Serve, keys: dict[str, str]
) -> None:
    upstream = serve(Upstream())
    response = ask(gateway(upstream.url, **keys), "hi", model="base", headers=CLIENTS)
    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    (request,) = upstream.requests
    assert "mine" not in str(request)
    assert dict(request["headers"]).get("authorization") == ("Bearer theirs" if "upstream_key" in keys else None)


def test_an_upstreams_key_alone_replaces_the_clients(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    ask(gateway(upstream.url, upstream_key="theirs"), "hi", model="base", headers=CLIENTS)
    assert "mine" not in str(upstream.requests)


def test_without_keys_the_clients_pass(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    response = ask(gateway(upstream.url), "hi", model="base", headers=CLIENTS)
    sent = dict(upstream.requests[0]["headers"])
    assert (sent["authorization"], sent["x-api-key"]) == ("Bearer mine", "mine")
    assert "proxy-authorization" not in sent
    assert response.headers["set-cookie"] == "node=7"


def test_headers_that_make_another_path_method_or_model_do_not_pass(gateway: Gateway, serve: Serve) -> None:
    upstream = serve(Upstream())
    headers = {
        "x-original-url": "/v1/load_lora_adapter",
        "x-rewrite-url": "/sleep",
        "x-http-method-override": "DELETE",
        "content-encoding": "identity",
        "x-amzn-sagemaker-adapter-identifier": "cook",
    }
    ask(gateway(upstream.url), "hi", model="base", headers=headers)
    assert not headers.keys() & dict(upstream.requests[0]["headers"]).keys()


class HttpProxy(RawServer):
    """A proxy that notes what it is asked for, and fails by itself."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        super().__init__()
        self.url = f"http://user:hunter2@{self.address}"

    def answer(self, request: bytes) -> bytes:
        self.asked.append(request.partition(b"\r\n")[0])
        return b"HTTP/1.1 502 Bad\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture
def http_proxy(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpProxy]:
    """One that the environment names for everything, and that fails."""
    proxy = HttpProxy()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield proxy
    proxy.close()


def test_an_upstream_on_this_machine_is_reached_without_a_proxy(
    gateway: Gateway, serve: Serve, http_proxy: HttpProxy
) -> None:
    upstream = serve(Upstream("cook"))
    for url in (upstream.url, upstream.url.replace("127.0.0.1", "localhost")):
        assert ask(gateway(url), "hi", model="cook").status_code == 200
    assert http_proxy.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_at_fault_is_named_without_its_password(
    gateway: Gateway, http_proxy: HttpProxy, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = gateway(f"{scheme}://gpu1.example:8000")
    assert http_proxy.asked
    health, refused = client.get("/health").text, ask(client, "hi", model="base").text
    address = public(http_proxy.url)
    assert f"through the proxy {address}" in json.loads(health)["upstreams"][0]["reason"]
    assert f"through the proxy {address}" in caplog.text
    assert "hunter2" not in health + refused + client.get("/metrics").text + caplog.text


def test_no_proxy_is_respected(monkeypatch: pytest.MonkeyPatch, http_proxy: HttpProxy) -> None:
    assert proxy_of("http://gpu1.example:8000") == http_proxy.url
    monkeypatch.setenv("NO_PROXY", "gpu1.example,.internal")
    assert proxy_of("http://gpu1.example:8000") is None
    assert proxy_of("http://a.internal") is None
    assert proxy_of("http://gpu2.example") == http_proxy.url
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, fd00::/8, gpu3.example:8000, x/y")
    assert proxy_of("http://10.1.2.3:8000") is proxy_of("http://[fd00::7]") is None
    assert proxy_of("http://gpu3.example:8000") is None
    assert proxy_of("http://11.1.2.3") == proxy_of("http://gpu3.example:9") == http_proxy.url


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a.localhost",
        "LOCALHOST",
        "127.0.0.1",
        "127.8.9.1",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_this_machine_has_many_names(http_proxy: HttpProxy, host: str) -> None:
    assert proxy_of(f"http://{host}:8000") is None
    assert proxy_of(f"https://{host}") is None


def test_a_proxy_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, http_proxy: HttpProxy, registry: Path
) -> None:
    monkeypatch.setenv("http_proxy", "ftp://user:hunter2@gate:1")
    monkeypatch.setenv("HTTP_PROXY", "ftp://user:hunter2@gate:1")
    with pytest.raises(InputError, match="the proxy ftp://gate:1 of the environment") as told:
        gateway_app(GatewayOptions(("http://gpu1.example",)), lambda: Registry.open(registry))
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@gpu1:8000",
        "http://:hunter2@gpu1:8000",
        "http://hunter2@gpu1",
        "https://user:hunter2@gpu1/v1",
        "user:hunter2@gpu1:8000",
        "http://user:hunt#hunter2@gpu1",
        "http://user:a/hunter2@gpu1",
        "http://user:a?hunter2@gpu1",
        "http://user:a@hunter2@gpu1",
        "http://user:x://hunter2@gpu1",
        "http://[hunter2@gpu1",
        "http://gpu1?key=hunter2",
        "http://gpu1#hunter2",
        "http://gpu1/x?key=hunter2@",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError, match="keys go into --upstream-key-env") as told:
        upstream_urls([url])
    assert "hunter2" not in str(told.value)
    assert told.value.__cause__ is None
