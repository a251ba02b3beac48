"""The same routes stand in the gateway and in the embedded server, behind their keys; for vLLM see `test_vllm_skills`."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from traitroute.adapters import Registry
from traitroute.serving.gateway import GatewayOptions, gateway_app

KEY = {"authorization": "Bearer secret"}
PATHS = ("/v1/skills", "/v1/skills/chef", "/v1/traits", "/v1/matrix", "/v1/openapi.json")


def gateway(registry: Registry, server: Any) -> ASGIApp:
    options = GatewayOptions(upstreams=("http://127.0.0.1:9",), key="secret")
    return gateway_app(options, lambda: Registry.open(registry.location, read_only=True))


def embedded(registry: Registry, server: Any) -> ASGIApp:
    pytest.importorskip("torch")
    from traitroute.serving.embedded.app import embedded_app

    idle: Any = _IdleDecoder()
    return embedded_app(
        idle,
        idle,
        lambda: Registry.open(registry.location, read_only=True),
        names=["tiny"],
        context=64,
        queue=4,
        api_key="secret",
    )


class _IdleDecoder:
    """Stands where a model would: nothing here generates."""

    alive = True

    @property
    def mixed(self) -> "_IdleDecoder":
        return self

    def is_proven(self, digest: str) -> bool:
        return False

    def start(self) -> None:
        """Nothing starts."""

    def close(self) -> None:
        """Nothing ends."""

    def use_store(self, store: object) -> None:
        """Nothing is loaded."""


@pytest.fixture(params=[gateway, embedded], ids=["gateway", "embedded"])
def client(request: Any, registry: Registry, server: Any) -> Iterator[TestClient]:
    with ExitStack() as stack:
        yield stack.enter_context(TestClient(request.param(registry, server)))


def test_skills_are_told_to_those_who_have_the_key(client: TestClient) -> None:
    for path in PATHS:
        assert client.get(path).status_code == 401
        assert client.get(path, headers=KEY).status_code == 200, path
    asked = {"task": "simmer the onion soup with butter"}
    assert client.post("/v1/skills/select", json=asked).status_code == 401
    found = client.post("/v1/skills/select", json=asked, headers=KEY).json()
    assert found["choice"] == "chef"
    told = {"decision": found["decision"], "reward": 1}
    assert client.post("/v1/feedback", json=told).status_code == 401
    assert client.post("/v1/feedback", json=told, headers=KEY).json()["skill"] == "chef"
