"""An empty registry on each database, and adapters of any layers."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from traitroute.adapters import Registry

WriteLora = Callable[..., Path]


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


@pytest.fixture
def write_lora(tmp_path: Path) -> WriteLora:
    """Write a LoRA of 8 by 8 features for each of `layers`, by rank, with `others` beside; keywords configure it."""

    def write(layers: Mapping[str, int], *, others: Mapping[str, Any] | None = None, **config: Any) -> Path:
        folder = tmp_path / f"lora-{len(list(tmp_path.glob('lora-*')))}"
        folder.mkdir()
        tensors = dict(others or {})
        for layer, rank in layers.items():
            for side, shape in (("A", (rank, 8)), ("B", (8, rank))):
                name = f"base_model.model.{layer}.lora_{side}.weight"
                tensors[name] = np.full(shape, 0.5, np.float32)
        settings = {
            "peft_type": "LORA",
            "base_model_name_or_path": "tiny-llama",
            "r": next(iter(layers.values()), 1),
            "lora_alpha": 4,
            "target_modules": sorted({layer.rpartition(".")[2] for layer in layers}),
        }
        (folder / "adapter_config.json").write_text(json.dumps(settings | config))
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return write
