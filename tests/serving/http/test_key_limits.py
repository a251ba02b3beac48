"""Limits of each key at our own routes."""

import asyncio
from typing import Any

import pytest
from starlette.testclient import TestClient
from traitroute.adapters import InputError
from traitroute.serving.http.key_limits import KeyLimits
from traitroute.serving.http.keys import KEY_DIGEST
from traitroute.serving.http.tenants import TENANT, Tenant

pytest.importorskip("limits", reason="needs limits: pip install 'traitroute[tenants]'")


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def keyed(app: Any, key: bytes = b"one", **limits: Any) -> TestClient:
    async def with_key(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, KEY_DIGEST: key, TENANT: Tenant(name="a", **limits)}, receive, send)

    return TestClient(with_key)


def test_by_default_nothing_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAITROUTE_KEY_RATE", raising=False)
    server = keyed(KeyLimits.from_environment().around(answer))
    assert {server.get("/").status_code for _ in range(50)} == {200}


def test_a_key_over_its_rate_is_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITROUTE_KEY_RATE", "3/hour")
    app = KeyLimits.from_environment().around(answer)
    one, two = keyed(app), keyed(app, b"two")
    answers = [one.get("/") for _ in range(5)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600
    assert answers[-1].json()["error"]["type"] == "invalid_request_error"
    assert two.get("/").status_code == 200


def test_a_tenants_own_limit_comes_first() -> None:
    app = KeyLimits(rate="1/hour").around(answer)
    server = keyed(app, rate="2/hour")
    assert [server.get("/").status_code for _ in range(3)] == [200, 200, 429]


def test_all_routes_count_together_and_only_so_many_at_once() -> None:
    waiting = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await waiting.wait()
        await answer(scope, receive, send)

    limits = KeyLimits(concurrent=2)
    routes = [limits.around(slow), limits.around(answer)]

    async def status(app: Any, key: bytes) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await app({"type": "http", "path": "/", KEY_DIGEST: key}, None, send)
        return sent[0]["status"]

    async def run() -> list[int]:
        under_way = [asyncio.create_task(status(routes[0], b"one")) for _ in range(2)]
        await asyncio.sleep(0)
        third, other = await status(routes[1], b"one"), await status(routes[1], b"two")
        waiting.set()
        done = await asyncio.gather(*under_way)
        return [third, other, *done, await status(routes[1], b"one")]

    assert asyncio.run(run()) == [429, 200, 200, 200, 200]


@pytest.mark.parametrize(
    ("variable", "value"), [("RATE", "fast"), ("RATE", "0/minute"), ("CONCURRENT", "no"), ("CONCURRENT", "0")]
)
def test_a_limit_that_is_none_keeps_the_server_from_starting(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"TRAITROUTE_KEY_{variable}", value)
    with pytest.raises(InputError, match=f"TRAITROUTE_KEY_{variable} is '{value}'"):
        KeyLimits.from_environment()
