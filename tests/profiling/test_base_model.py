"""Where a base model is found, and what its digest follows."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from traitroute.adapters import BaseModelError
from traitroute.profiling.base_model import PACKAGED, cache_folder, open_base_files, open_base_model

from ..servers import serving


def write_model(folder: Path, *, weights: bytes = b"weights", config: str = "{}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_local_folder_is_a_base_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    base = open_base_model(str(folder))
    assert (base.name, base.path) == (str(folder), folder)
    assert len(base.digest) == 64


def test_weights_take_their_bytes_in_the_precision_they_are_loaded_in(tmp_path: Path) -> None:
    half = open_base_model(str(write_model(tmp_path / "half", config='{"dtype": "bfloat16"}')))
    whole = open_base_model(str(write_model(tmp_path / "whole", config='{"text_config": {"torch_dtype": "float32"}}')))
    assert (half.weights_size("bfloat16"), half.weights_size("float32")) == (7, 14)
    assert (whole.weights_size("bfloat16"), whole.weights_size("float32")) == (3, 7)


def test_digest_follows_weights_and_configuration_but_not_the_place(tmp_path: Path) -> None:
    digests = [
        open_base_model(str(folder)).digest
        for folder in (
            write_model(tmp_path / "a"),
            write_model(tmp_path / "b"),
            write_model(tmp_path / "c", weights=b"others"),
            write_model(tmp_path / "d", config='{"a": 1}'),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_folder_without_a_model_is_told_what_it_needs(tmp_path: Path, missing: str) -> None:
    (write_model(tmp_path) / missing).unlink()
    with pytest.raises(BaseModelError, match=r"needs config\.json and \*\.safetensors"):
        open_base_model(str(tmp_path))


def test_packaged_model_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITROUTE_CACHE", str(tmp_path))
    folder = write_model(cache_folder() / PACKAGED)
    (folder / "complete.json").write_text("{}")
    assert open_base_model(PACKAGED).path == folder == tmp_path / PACKAGED


def test_name_that_is_nothing_says_what_it_could_have_been() -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(BaseModelError, match=r"'no such model!' is neither .* nor a Hub id"):
        open_base_model("no such model!")


def test_files_of_a_served_model_are_enough_where_a_registry_knows_its_weights(tmp_path: Path) -> None:
    whole = open_base_model(str(write_model(tmp_path / "whole" / "tiny")))
    bare = write_model(tmp_path / "bare" / "tiny")
    assert open_base_files(str(bare), {}).digest == whole.digest
    (bare / "model.safetensors").unlink()
    known = {whole.digest: "acme/tiny", "e" * 64: "acme/large"}
    assert open_base_files(str(bare), known).digest == whole.digest
    with pytest.raises(BaseModelError, match="nothing else tells which weights its server runs"):
        open_base_files(str(bare), {"e" * 64: "acme/large"})


COMMIT = "a" * 40
OPEN = "import sys; from traitroute.profiling.base_model import open_base_files as o; print(o('acme/tiny', {}).digest)"


@pytest.mark.slow
def test_of_a_served_model_of_the_hub_no_weights_are_downloaded(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the Hub's client: '.[sources]'")
    starlette = pytest.importorskip("starlette.applications")
    from starlette.responses import FileResponse, JSONResponse
    from starlette.routing import Route

    folder, read = write_model(tmp_path / "tiny"), list[str]()
    (folder / "tokenizer.json").write_text("{}")

    def card(file: Path) -> dict[str, object]:
        facts = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": 7, "pointerSize": 99}
        return {"rfilename": file.name, "size": 7, "blobId": "b" * 40, "lfs": facts if "model." in file.name else None}

    def resolve(request) -> FileResponse:
        name = request.path_params["name"]
        read.append(name)
        return FileResponse(folder / name, headers={"x-repo-commit": COMMIT})

    model = {"id": "acme/tiny", "sha": COMMIT, "siblings": [card(f) for f in sorted(folder.iterdir())]}
    tree = [{"type": "file", "path": f.name, "size": 7, "oid": "b" * 40} for f in folder.iterdir()]
    routes = [
        Route("/api/models/acme/tiny", lambda _: JSONResponse(model)),
        Route("/api/models/acme/tiny/revision/{revision}", lambda _: JSONResponse(model)),
        Route("/api/models/acme/tiny/tree/{revision}", lambda _: JSONResponse(tree)),
        Route(f"/acme/tiny/resolve/{COMMIT}/{{name}}", resolve),
    ]
    kept = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
    with serving(starlette.Starlette(routes=routes)) as url:
        told = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run([sys.executable, "-c", OPEN], env=kept | told, capture_output=True, text=True)
    assert done.stdout.strip() == open_base_model(str(folder)).digest, done.stderr
    assert set(read) == {"config.json", "tokenizer.json"}
