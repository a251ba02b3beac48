"""A tiny adapter folder in PEFT's format, made without torch; and an empty registry on each database."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from traitroute.adapters import Registry

MakeAdapter = Callable[..., Path]


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """Write an adapter of rank 2 on `q_proj` and `v_proj`; keywords change its configuration."""

    def make(name: str = "adapter", *, fill: float = 0.5, rank: int = 2, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = {
            "base_model_name_or_path": "tiny-llama",
            "lora_alpha": 4,
            "peft_type": "LORA",
            "r": 2,
            "target_modules": ["v_proj", "q_proj"],
        }
        tensors = {}
        for module in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.0.self_attn.{module}"
            tensors[f"{stem}.lora_A.weight"] = np.full((rank, 8), fill, np.float32)
            tensors[f"{stem}.lora_B.weight"] = np.full((8, rank), fill, np.float32)
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a registry may be made: a path, or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "registry.db")
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def registry(place: str) -> Iterator[Registry]:
    """An empty registry."""
    with Registry.create(place) as registry:
        yield registry
