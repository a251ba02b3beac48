"""An app with the routes for administrators over a registry that a follower reads, and adapters to add."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from starlette.applications import Starlette
from starlette.testclient import TestClient
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.serving.admin import admin_operations
from traitroute.serving.state import ServerState
from traitroute.serving.watcher import RegistryWatcher

KEY = "a secret of the operator's"
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


def save_lora(folder: Path, *, fill: float = 0.5, width: int = 8, **changes: Any) -> Path:
    """Save an adapter for the base model `tiny`."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    config |= {"base_model_name_or_path": "tiny"} | changes
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        f"{LAYER}.lora_A.weight": np.full((2, width), fill, np.float32),
        f"{LAYER}.lora_B.weight": np.full((8, 2), fill, np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@dataclass(frozen=True)
class Office:
    """A registry with one ready adapter, `old`, and the folder that adapters may be added from."""

    registry: Registry
    allowed: Path
    client: TestClient

    def save(self, name: str, **changes: Any) -> str:
        """Save an adapter in the allowed folder."""
        return str(save_lora(self.allowed / name, **changes))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Ask with the admin's key; further headers' names are written with underscores."""
        given = {"x-traitroute-admin-key": KEY} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.client.request(method, f"/v1/adapters{path}", json=body, headers=given)

    def kept(self) -> tuple[int, set[str]]:
        """The registry's revision, and all that its weight store holds."""
        root = self.registry.weights.root
        return self.registry.revision(), {str(p.relative_to(root)) for p in root.rglob("*")}


OpenOffice = Callable[[], Any]


@pytest.fixture
def open_office(tmp_path: Path) -> OpenOffice:
    """Open an office with the settings that the environment has by then."""

    @contextmanager
    def opened() -> Iterator[Office]:
        with Registry.create(tmp_path / "registry.db") as registry:
            files = registry.weights.add(save_lora(tmp_path / "old", fill=0.75))
            registry.add_adapter(
                Adapter(
                    name="old",
                    base_model="tiny",
                    base_digest="0" * 64,
                    weights_digest=files.digest,
                    rank=2,
                    target_modules=("q_proj",),
                    state=AdapterState.READY,
                )
            )
            path, state = registry.path, ServerState()
            following = RegistryWatcher(state, lambda: Registry.open(path, read_only=True), lambda *_: None)
            asyncio.run(following.refresh())
            routes = [operation.route() for operation in admin_operations(state)]
            with TestClient(Starlette(routes=routes)) as client:
                yield Office(registry, tmp_path / "allowed", client)

    return opened


@pytest.fixture
def office(open_office: OpenOffice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Office]:
    """An office with a key, and one folder that adapters may come from."""
    monkeypatch.setenv("TRAITROUTE_ADMIN_KEY", KEY)
    monkeypatch.setenv("TRAITROUTE_ALLOWED_SOURCES", str(tmp_path / "allowed"))
    with open_office() as it:
        yield it
