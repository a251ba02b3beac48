"""Administrators at work at the same time, in threads and in processes, lose no update."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Adapter, AdapterState, ConflictError, Registry

WRITERS = 8
CHANGES = 6


def adapter(name: str, digest: str = "1" * 64) -> Adapter:
    fields = {"name": name, "base_model": "tiny", "base_digest": "f" * 64, "rank": 4}
    return Adapter.model_validate(
        fields | {"weights_digest": digest, "target_modules": ("q",), "state": AdapterState.PENDING}
    )


def add_tag(registry: Registry, name: str, tag: str) -> int:
    """Add a tag to those that are there, and return how often somebody else came first."""
    for conflicts in range(10_000):
        found = registry.adapter(name)
        try:
            registry.set_tags(name, [*found.tags, tag], expected=found)
        except ConflictError:
            continue
        return conflicts
    raise AssertionError("it never came through")


def admit(registry: Registry, name: str) -> None:
    """Append the adapter's name to the newest profile's, as a worker appends a row to a matrix."""
    while True:
        newest = registry.latest_profile()
        data = (newest.data if newest else b"") + name.encode() + b" "
        try:
            parent = newest.version if newest else None
            registry.admit(registry.adapter(name), data, made_up_summary(), parent=parent)
        except ConflictError:
            continue
        return


def test_tags_added_from_many_threads_are_all_kept(registry: Registry) -> None:
    registry.add_adapter(adapter("shared"))
    with Registry.open(registry.location) as other, ThreadPoolExecutor(WRITERS) as pool:
        tags = [f"w{w}-{i}" for w in range(WRITERS) for i in range(CHANGES)]
        write = lambda i: add_tag((registry, other)[i % 2], "shared", tags[i])  # noqa: E731
        list(pool.map(write, range(len(tags))))
    assert sorted(registry.adapter("shared").tags) == sorted(tags)


def test_a_row_that_another_worker_admitted_is_never_dropped(registry: Registry) -> None:
    names = [f"a{i}" for i in range(2 * WRITERS)]
    for name in names:
        registry.add_adapter(adapter(name))
    registry.put_profile(b"", made_up_summary())
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda name: admit(registry, name), names))
    latest = registry.latest_profile()
    assert latest is not None
    assert sorted(latest.data.decode().split()) == sorted(names)
    assert {a.state for a in registry.adapters()} == {AdapterState.READY}
    parents = [p.parent for p in registry.profile_history()]
    assert parents == [None, *range(1, len(names) + 1)]


def test_one_of_many_replacements_waits(registry: Registry) -> None:
    registry.add_adapter(adapter("shared"))

    def replace(i: int) -> bool:
        try:
            registry.replace_adapter(adapter("shared", f"{i + 2}" * 64))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        assert sum(pool.map(replace, range(WRITERS))) == 1
    assert len(registry.replacements()) == 1


@pytest.mark.slow
def test_two_processes_add_change_and_tag(registry: Registry, place: str) -> None:
    registry.add_adapter(adapter("shared"))
    before = registry.revision()
    code = f"""
import sys
sys.path[:] = {[__file__.rpartition("/")[0], *sys.path]!r}
from test_concurrency import *
with Registry.open(sys.argv[1], author=sys.argv[2]) as registry:
    for i in range({CHANGES}):
        name = f"{{sys.argv[2]}}{{i}}"
        registry.add_adapter(adapter(name))
        registry.set_state(name, AdapterState.DISABLED, note="why")
        add_tag(registry, "shared", name)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, place, author]) for author in ("ann", "ben")]
    assert [process.wait(120) for process in processes] == [0, 0]
    added = sorted(f"{author}{i}" for author in ("ann", "ben") for i in range(CHANGES))
    assert [a.name for a in registry.adapters(AdapterState.DISABLED)] == added
    assert sorted(registry.adapter("shared").tags) == added
    assert registry.revision() == before + 3 * len(added)
