"""An adapter added through the gateway reaches an upstream that can load it."""

from pathlib import Path

import pytest
from traitroute.serving.gateway import Load

from .conftest import Gateway, Serve, Upstream, ask, eventually, make_adapter

KEY = {"x-traitroute-admin-key": "a secret of the operator's"}


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that adapters may be added from."""
    (tmp_path / "sources").mkdir()
    monkeypatch.setenv("TRAITROUTE_ADMIN_KEY", *KEY.values())
    monkeypatch.setenv("TRAITROUTE_ALLOWED_SOURCES", str(tmp_path / "sources"))
    return tmp_path / "sources"


def test_an_added_adapter_is_loaded_where_it_is_first_asked_for(serve: Serve, gateway: Gateway, sources: Path) -> None:
    upstream = Upstream()
    upstream.loads = []
    client = gateway(serve(upstream).url, load=Load.VLLM)
    new = {"name": "late", "uri": str(make_adapter(sources / "late", 0.9))}
    assert client.post("/v1/adapters", json=new).status_code == 401
    added = client.post("/v1/adapters", json=new, headers=KEY)
    assert added.status_code == 201, added.text
    eventually(lambda: "late" in [card["id"] for card in client.get("/v1/models").json()["data"]])
    assert ask(client, "hello", model="late").status_code == 200
    (load,) = upstream.loads
    assert load["lora_path"].endswith(added.json()["weights_digest"])
    assert client.delete("/v1/adapters/late", headers=KEY).status_code == 200


def test_the_admins_key_reaches_no_upstream(serve: Serve, gateway: Gateway, sources: Path) -> None:
    upstream = serve(Upstream())
    client = gateway(upstream.url)
    client.get("/v1/adapters", headers=KEY)
    assert upstream.requests == []
    ask(client, "hello", model="tiny", headers=KEY)
    (request,) = upstream.requests
    assert not {name for name, _ in request["headers"]} & set(KEY)
