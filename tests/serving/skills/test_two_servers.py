"""The gateway and the embedded server have the same routes, behind their keys; for vLLM see `test_vllm_skills`."""

from typing import Any

import pytest
from starlette.testclient import TestClient
from traitroute.adapters import Registry
from traitroute.serving.http.addresses import EXPOSED

KEY = {"authorization": "Bearer secret"}
PATHS = ("/v1/skills", "/v1/skills/chef", "/v1/traits", "/v1/matrix", "/v1/openapi.json")


@pytest.fixture
def client(open_server: Any, registry: Registry) -> TestClient:
    return open_server(registry, "secret")


@pytest.mark.slow
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


def test_pages_may_read_every_header_of_routing(server: Any, text_of: Any) -> None:
    messages = [{"role": "user", "content": text_of("cooking")}]
    told = server.post(
        "/v1/chat/completions",
        {"model": "auto", "messages": messages, "traitroute": {"explain": True}},
    )
    ours = {name for name in told.headers if name.startswith("x-traitroute-")}
    assert ours == {name for name in EXPOSED if name.startswith("x-traitroute-")}


def test_anthropics_clients_are_told_in_their_form_what_is_wrong(client: TestClient) -> None:
    asked = {"model": "nobody", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
    refused = client.post("/v1/messages", json=asked)
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    for body in (asked, {"model": "auto"}, []):
        told = client.post("/v1/messages", json=body, headers={"x-api-key": "secret"})
        assert told.status_code in (400, 404, 502, 503), told.text
        assert told.json()["type"] == "error"
