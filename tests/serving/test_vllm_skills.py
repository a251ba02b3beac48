"""The skills API stands in vLLM's app, behind its keys.

Apart from `skills/`, since attaching to vLLM changes logging for all tests that come later.
"""

from pathlib import Path

import pytest
from starlette.testclient import TestClient
from traitroute.adapters import Registry
from traitroute.serving.http.keys import ApiKeys
from traitroute.serving.snapshot import RegistrySnapshot

fastapi = pytest.importorskip("fastapi", reason="the plugin runs inside vLLM's FastAPI app")
pytest.importorskip("vllm", reason="the plugin runs inside vLLM: pip install 'traitroute[serve]'")

KEY = {"authorization": "Bearer secret"}


def test_skills_are_told_to_those_who_have_the_key(filled: Path) -> None:
    from traitroute.serving.vllm.plugin import TraitRoutePlugin, guard

    app, plugin = fastapi.FastAPI(), TraitRoutePlugin()
    plugin.attach_router(app)
    # As `init_state` fills them in, which needs an engine.
    with Registry.open(filled, read_only=True) as registry:
        plugin.state.snapshot = RegistrySnapshot.read(registry)
    guard(app, ApiKeys(["secret"]))
    client, asked = TestClient(app), {"task": "simmer the onion soup with butter"}
    for path in ("/v1/skills", "/v1/skills/chef", "/v1/matrix", "/v1/openapi.json"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=KEY).status_code == 200
    assert client.post("/v1/skills/select", json=asked).status_code == 401
    found = client.post("/v1/skills/select", json=asked, headers=KEY).json()
    assert found["choice"] == "chef"
