"""Tenants before real upstreams: whose adapters answer, what is listed, and that no tenant's key goes further."""

from pathlib import Path

import pytest
from traitroute.serving.http.tenants import key_hash

from .conftest import Gateway, Serve, Upstream, ask

COOK = {"authorization": "Bearer cooks-key"}
TENANTS = f"""
[tenants.cooks]
keys = ["{key_hash("cooks-key")}"]
adapters = ["cook", "other-model"]
"""


@pytest.fixture(autouse=True)
def tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tenants.toml").write_text(TENANTS)
    monkeypatch.setenv("TRAITROUTE_TENANTS", str(tmp_path / "tenants.toml"))


def test_a_tenant_is_answered_by_its_own_and_its_key_reaches_no_upstream(serve: Serve, gateway: Gateway) -> None:
    upstream = serve(Upstream("coder", "cook", "critic", "other-model", "secret-model"))
    client = gateway(upstream.url)
    assert ask(client, "hello", model="cook").status_code == 401
    assert ask(client, "hello", model="cook", headers=COOK).json()["model"] == "cook"
    assert ask(client, "hello", model="other-model", headers=COOK).json()["model"] == "other-model"
    (*asked,) = upstream.requests
    assert not any(name in ("authorization", "x-api-key") for request in asked for name, _ in request["headers"])
    listed = [card["id"] for card in client.get("/v1/models", headers=COOK).json()["data"]]
    assert listed == ["base", "auto", "cook", "other-model"]


def test_what_is_not_a_tenants_reaches_no_upstream(serve: Serve, gateway: Gateway) -> None:
    upstream = serve(Upstream("coder", "cook", "critic", "secret-model"))
    client = gateway(upstream.url)
    answers = [ask(client, "hello", model=name, headers=COOK) for name in ("coder", "secret-model", "no-model")]
    assert [each.status_code for each in answers] == [404] * 3
    assert upstream.requests == []
    routed = ask(client, "write a python function", headers=COOK)
    assert routed.headers["x-traitroute-adapter"] == "base"
    assert client.get("/health", headers=COOK).json().keys() == {"status"}
