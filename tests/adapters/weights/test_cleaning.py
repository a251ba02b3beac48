"""Weights that nothing names are removed after a time; those that are named or added meanwhile stay."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import (
    Adapter,
    AdapterState,
    AllowedSources,
    Base,
    Importer,
    Registry,
    WeightStore,
)
from traitroute.adapters.weights.store import Leftover

MakeAdapter = Callable[..., Path]
NOW = timedelta(0)


@pytest.fixture
def store(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightStore:
    """The store of the registry, in a file or a database."""
    monkeypatch.setenv("TRAITROUTE_WEIGHTS", str(tmp_path / "registry.weights"))
    return registry.weights


def clean(registry: Registry, **options: Any) -> list[Leftover]:
    """What `traitroute registry clean` does."""
    return registry.weights.clean(registry.named_weights(), **options)


def record(name: str, digest: str) -> Adapter:
    fields = {"name": name, "base_model": "tiny", "base_digest": "f" * 64, "rank": 2}
    return Adapter.model_validate(
        fields | {"weights_digest": digest, "target_modules": ("q_proj",), "state": AdapterState.READY}
    )


def age(path: Path) -> None:
    """Set a file's time to more than a day ago."""
    then = time.time() - 25 * 3600
    os.utime(path, (then, then))


def folders(store: WeightStore) -> set[str]:
    return {path.name for path in store.root.iterdir() if path.is_dir()}


def test_only_weights_that_nothing_names_are_removed(
    registry: Registry, store: WeightStore, make_adapter: MakeAdapter
) -> None:
    served, waiting, profiled, removed, orphan = (
        store.add(make_adapter(str(i), fill=i / 8)).digest for i in range(1, 6)
    )
    registry.add_adapter(record("served", served))
    registry.replace_adapter(record("served", waiting))
    registry.put_profile(b"", made_up_summary(["gone"], weights={"gone": profiled}))
    registry.put_profile(b"", made_up_summary())
    registry.add_adapter(record("removed", removed))
    registry.remove_adapter("removed")
    leftovers = clean(registry, grace=NOW, free=True)
    assert {each.folder.name for each in leftovers} == {removed, orphan}
    assert all(each.freed and each.size > 0 for each in leftovers)
    assert folders(store) == {served, waiting, profiled}
    registry.forget_profiles(keep=1)
    clean(registry, grace=NOW, free=True)
    assert folders(store) == {served, waiting}


def test_the_time_begins_when_they_are_first_marked(
    registry: Registry, store: WeightStore, make_adapter: MakeAdapter
) -> None:
    digest = store.add(make_adapter()).digest
    os.utime(store.path(digest), (0, 0))
    assert not clean(registry, free=True)[0].freed
    age(store.root / f".unnamed-{digest}")
    assert not clean(registry)[0].freed
    assert folders(store) == {digest}
    assert clean(registry, free=True)[0].freed
    assert not list(store.root.iterdir())


def test_weights_that_are_named_again_lose_their_mark(
    registry: Registry, store: WeightStore, make_adapter: MakeAdapter
) -> None:
    digest = store.add(make_adapter()).digest
    clean(registry)
    registry.add_adapter(record("served", digest))
    assert clean(registry, grace=NOW, free=True) == []
    assert not (store.root / f".unnamed-{digest}").exists()
    store.verify(digest)


def test_scratch_folders_of_killed_processes_are_removed_and_those_in_use_stay(
    registry: Registry, store: WeightStore
) -> None:
    for name in ("dead", "busy"):
        folder = store.root / f".adding-{name}"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"x" * 100)
    for path in (store.root / ".adding-dead" / "adapter_model.safetensors", folder):
        age(path)
    age(store.root / ".adding-dead")
    leftovers = {each.folder.name: each for each in clean(registry, free=True)}
    assert (leftovers[".adding-dead"].freed, leftovers[".adding-busy"].freed) == (True, False)
    assert folders(store) == {".adding-busy"}


@pytest.mark.parametrize("marked", [True, False])
def test_a_removal_that_was_cut_short_is_finished_or_undone(
    registry: Registry, store: WeightStore, make_adapter: MakeAdapter, marked: bool
) -> None:
    digest = store.add(make_adapter()).digest
    registry.add_adapter(record("served", digest)) if not marked else store.mark(digest)
    store.path(digest).rename(store.root / f".freeing-{digest}")
    clean(registry, free=True)
    assert folders(store) == (set() if marked else {digest})


@pytest.mark.slow
def test_weights_added_while_they_are_freed_are_there(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    store, folder = WeightStore(tmp_path / "store"), make_adapter()
    digest = store.add(folder).digest
    freed = 0
    with ThreadPoolExecutor(2) as pool:
        for _ in range(300):
            store.mark(digest)
            start = threading.Barrier(2)
            free = pool.submit(lambda s=start: (s.wait(), store.free(digest))[1])
            add = pool.submit(lambda s=start: (s.wait(), store.add(folder))[1])
            freed += free.result()
            assert add.result().digest == digest
            store.verify(digest)
    assert {path.name for path in store.root.iterdir()} == {digest}
    # Both orders happened, or nothing was tested.
    assert 0 < freed < 300


@pytest.mark.slow
def test_adapters_come_and_go_while_the_store_is_cleaned(
    registry: Registry, store: WeightStore, make_adapter: MakeAdapter
) -> None:
    folders = [make_adapter(str(i), fill=(i + 1) / 8) for i in range(4)]
    allowed, base = AllowedSources(typed=True), Base("tiny-llama", "f" * 64)
    done = threading.Event()

    def keep_cleaning() -> int:
        freed = 0
        while not done.is_set():
            freed += sum(e.freed for e in clean(registry, grace=timedelta(seconds=1), free=True))
        return freed

    with (
        ThreadPoolExecutor(1) as pool,
        Registry.open(registry.location, weights=store.root) as other,
    ):
        importer, cleaning = Importer(other, allowed, base=base), pool.submit(keep_cleaning)
        try:
            for _ in range(3):
                for i, folder in enumerate(folders):
                    result = importer.add(f"a{i}", str(folder))
                    store.verify(result.adapter.weights_digest)
                    other.remove_adapter(f"a{i}")
                time.sleep(1.2)
        finally:
            done.set()
        assert cleaning.result() > len(folders)
