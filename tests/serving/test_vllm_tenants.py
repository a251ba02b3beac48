"""Tenants in vLLM's app: the list of models, which adapters it has loaded itself, and its own check of keys.

Apart from `tenants/`, since attaching to vLLM changes logging for all tests that come later.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from traitroute.adapters import Registry
from traitroute.serving.http.keys import ApiKeys
from traitroute.serving.http.tenants import key_hash
from traitroute.serving.snapshot import RegistrySnapshot

fastapi = pytest.importorskip("fastapi", reason="the plugin runs inside vLLM's FastAPI app")
pytest.importorskip("vllm", reason="the plugin runs inside vLLM: pip install 'traitroute[serve]'")

TENANTS = f"""
[tenants.cooks]
keys = ["{key_hash("cook")}"]
tags = ["kitchen"]

[tenants.others]
keys = ["{key_hash("other")}"]
adapters = ["preloaded"]
"""


class Models:
    """What vLLM lists: the base model, an adapter of the registry that it loaded, and one of its command line."""

    async def show_available_models(self) -> Any:
        from vllm.entrypoints.serve.engine.protocol import ModelCard, ModelList

        names = ("tiny", "pilot", "preloaded")
        return ModelList(data=[ModelCard(id=n, root=n, parent=None if n == "tiny" else "tiny") for n in names])


@pytest.fixture
def client(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    from traitroute.serving.vllm.plugin import TraitRoutePlugin, guard
    from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

    (tmp_path / "tenants.toml").write_text(TENANTS)
    monkeypatch.setenv("TRAITROUTE_TENANTS", str(tmp_path / "tenants.toml"))
    app, plugin = fastapi.FastAPI(), TraitRoutePlugin()
    plugin.attach_router(app)
    app.state.openai_serving_models = Models()
    app.add_api_route("/metrics", lambda: "traitroute_decisions_total{adapter='pilot'}")
    # As vLLM adds it, around the plugin's middleware, where it was given a key.
    app.add_middleware(AuthenticationMiddleware, tokens=["operator"])
    plugin.state.base_names = ("tiny",)
    with Registry.open(filled, read_only=True) as registry:
        plugin.state.snapshot = RegistrySnapshot.read(registry, base_names=("tiny",))
    guard(app, ApiKeys.of_server(Namespace(api_key="operator")))
    return TestClient(app)


def listed(client: TestClient, key: str) -> list[str]:
    listing = client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert listing.status_code == 200, listing.text
    return [card["id"] for card in listing.json()["data"]]


def test_each_tenant_is_listed_its_own_and_nothing_that_vllm_loaded_for_others(client: TestClient) -> None:
    assert listed(client, "operator") == ["tiny", "preloaded", "auto", "chef", "idle", "pilot"]
    assert listed(client, "cook") == ["tiny", "auto", "chef"]
    assert listed(client, "other") == ["tiny", "preloaded", "auto"]
    for name in ("pilot", "preloaded"):
        shown = client.get(f"/v1/models/{name}", headers={"authorization": "Bearer cook"})
        assert shown.status_code == 404


def test_vllms_own_check_passes_tenants_keys_and_its_metrics_need_the_operators(client: TestClient) -> None:
    for path, key, status in (
        ("/v1/skills", "cook", 200),
        ("/v1/skills", "wrong", 401),
        ("/metrics", "cook", 403),
        ("/metrics", "wrong", 401),
        ("/metrics", "operator", 200),
    ):
        assert client.get(path, headers={"authorization": f"Bearer {key}"}).status_code == status, (path, key)
    assert client.get("/metrics").status_code == 401


def test_a_preloaded_adapter_answers_only_whom_the_operator_names_it_to(client: TestClient) -> None:
    asked = {"model": "preloaded", "messages": [{"role": "user", "content": "x"}]}
    for key, named in (("cook", False), ("other", True)):
        answer = client.post("/v1/chat/completions", json=asked, headers={"authorization": f"Bearer {key}"})
        # Nothing generates here, so what passes our routing is vLLM's 404 or FastAPI's.
        assert ("does not exist" in answer.text) is not named
