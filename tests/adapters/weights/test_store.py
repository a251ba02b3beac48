"""The weight store keeps what it is given, unchanged and only once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from traitroute.adapters import WeightsError, WeightStore, inspect_adapter

MakeAdapter = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path / "store")


def test_only_the_two_files_are_kept_unchanged_and_read_only(store: WeightStore, make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    originals = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "training_args.bin").write_bytes(b"a pickle")
    kept = list(store.path(store.add(folder).digest).iterdir())
    assert {file.name: file.read_bytes() for file in kept} == originals
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o444}


def test_the_copy_outlives_the_original(store: WeightStore, make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    files = store.add(folder)
    (folder / "adapter_model.safetensors").unlink()
    assert inspect_adapter(store.path(files.digest)) == files


def test_adding_twice_keeps_one_copy(store: WeightStore, make_adapter: MakeAdapter) -> None:
    first = store.add(make_adapter())
    assert store.add(make_adapter("same", base_model_name_or_path="elsewhere")) == (
        inspect_adapter(make_adapter("again", base_model_name_or_path="elsewhere"))
    )
    assert [folder.name for folder in store.root.iterdir()] == [first.digest]


def test_concurrent_adds_of_the_same_weights_all_succeed(store: WeightStore, make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    with ThreadPoolExecutor(4) as pool:
        digests = {files.digest for files in pool.map(store.add, [folder] * 8)}
    assert {kept.name for kept in store.root.iterdir()} == digests
    store.verify(*digests)


def test_refused_weights_leave_nothing_behind(store: WeightStore, make_adapter: MakeAdapter) -> None:
    with pytest.raises(WeightsError):
        store.add(make_adapter(peft_type="VERA"))
    assert not list(store.root.iterdir())


@pytest.mark.parametrize("digest", ["../../etc", "", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_path_needs_a_digest(store: WeightStore, digest: str) -> None:
    with pytest.raises(WeightsError, match="64 hexadecimal digits"):
        store.path(digest)


def test_unknown_weights_are_reported(store: WeightStore) -> None:
    with pytest.raises(WeightsError, match=r"no weights aaaa.*add the adapter again"):
        store.path("a" * 64)


def test_verify_notices_a_changed_byte(store: WeightStore, make_adapter: MakeAdapter) -> None:
    digest = store.add(make_adapter()).digest
    store.verify(digest)
    weights = store.path(digest) / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    with pytest.raises(WeightsError, match="have changed"):
        store.verify(digest)
