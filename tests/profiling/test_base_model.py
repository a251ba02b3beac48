"""Where a base model is found, and what its digest follows."""

from pathlib import Path

import pytest
from traitroute.adapters import BaseModelError
from traitroute.profiling.base_model import PACKAGED, cache_folder, open_base_model


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
