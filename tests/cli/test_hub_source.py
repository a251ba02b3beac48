"""`traitroute adapters add ORG/NAME` over the Hub's own protocol, from a small server that speaks it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from traitroute.adapters import Adapter, Registry

from ..servers import serving

pytest.importorskip("huggingface_hub", reason="needs the Hub's client: '.[sources]'")
pytest.importorskip("uvicorn")

COMMIT = "a" * 40
README = "---\nlicense: mit\n---\n# Polite\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with an adapter for the base model `tiny`, and a pickle beside it."""
    folder = tmp_path / "repository"
    folder.mkdir()
    config = '{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}'
    (folder / "adapter_config.json").write_text(config)
    (folder / "README.md").write_text(README)
    (folder / "training_args.bin").write_bytes(b"cos\nsystem\n")
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    halves = {"A": np.full((2, 8), 0.5, "f4"), "B": np.full((8, 2), 0.5, "f4")}
    tensors = {f"{stem}.lora_{side}.weight": half for side, half in halves.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[tuple[str, list[str]]]:
    """The URL of a Hub that has that repository as `acme/polite`, and which of its files were asked for."""
    read: list[str] = []

    def tree(_: Request) -> Response:
        files = [f for f in repository.iterdir() if f.is_file()]
        card = {"type": "file", "oid": "b" * 40}
        return JSONResponse([card | {"path": f.name, "size": f.stat().st_size} for f in files])

    def resolve(request: Request) -> Response:
        name = request.path_params["name"]
        read.append(name)
        return FileResponse(repository / name, headers={"x-repo-commit": COMMIT})

    model = {"id": "acme/polite", "sha": COMMIT, "siblings": []}
    routes = [
        Route("/api/models/acme/polite", lambda _: JSONResponse(model)),
        Route("/api/models/acme/polite/revision/main", lambda _: JSONResponse(model)),
        Route("/api/models/acme/polite/tree/main", tree),
        Route("/acme/polite/resolve/main/{name}", resolve),
    ]
    with serving(Starlette(routes=routes)) as url:
        yield url, read


@pytest.mark.slow
def test_an_adapter_of_the_hub_comes_in_without_its_pickle(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    url, read = hub
    path = tmp_path / "team.db"
    with Registry.create(path) as registry:
        registry.add_adapter(
            Adapter(
                name="old",
                base_model="tiny",
                base_digest="0" * 64,
                weights_digest="1" * 64,
                rank=2,
                target_modules=("q_proj",),
            )
        )
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    environment = {k: v for k, v in os.environ.items() if k.upper() not in proxies}
    told = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    command = [str(Path(sys.executable).with_name("traitroute")), "adapters", "add", "polite"]
    command += ["acme/polite", "--allow-root", "hf://acme", "--registry", str(path)]
    done = subprocess.run(command, env=environment | told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Registry.open(path, read_only=True) as registry:
        adapter = registry.adapter("polite")
        assert registry.weights.path(adapter.weights_digest).is_dir()
    assert (adapter.uri, adapter.licence) == ("hf://acme/polite", "mit")
    assert set(read) == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
