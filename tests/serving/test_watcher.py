"""A server follows the file at its registry's path, whichever file that is, and whoever may write it."""

import asyncio
import os
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from traitroute.adapters import Adapter, AdapterState, Location, Registry
from traitroute.serving import watcher as following_module
from traitroute.serving.state import ServerState
from traitroute.serving.watcher import RegistryWatcher


def registry_of(path: Path, *names: str) -> Path:
    with Registry.create(path) as registry:
        for i, name in enumerate(names):
            registry.add_adapter(
                Adapter(
                    name=name,
                    base_model="tiny",
                    base_digest="0" * 64,
                    weights_digest=f"{i}" * 64,
                    rank=4,
                    target_modules=("q_proj",),
                    state=AdapterState.PENDING,
                )
            )
    return path


def remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


@pytest.fixture
def state() -> ServerState:
    return ServerState()


def follower(state: ServerState, path: Path) -> RegistryWatcher:
    return RegistryWatcher(state, lambda: Registry.open(path, read_only=True), lambda *_: None)


def test_a_deleted_registry_takes_nothing_away(state: ServerState, tmp_path: Path) -> None:
    path = registry_of(tmp_path / "registry.db", "code")
    following = follower(state, path)
    asyncio.run(following.refresh())
    remove(path)
    asyncio.run(following.refresh())
    assert state.snapshot.adapters.keys() == {"code"}


def test_an_adapter_called_like_the_base_model_is_told_as_not_served(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = registry_of(tmp_path / "registry.db", "code", "Llama")
    state = ServerState(base_names=("llama", "base"))
    following = follower(state, path)
    for _ in range(2):
        asyncio.run(following.refresh())
        with Registry.open(path) as registry:
            registry.set_tags("code", ["work"])
    assert state.snapshot.adapters.keys() == {"code"}
    assert [r.message for r in caplog.records if "not served: Llama" in r.message] != []
    assert len(caplog.records) <= 3


def test_a_restored_registry_is_followed(state: ServerState, tmp_path: Path) -> None:
    path = registry_of(tmp_path / "registry.db", "code")
    following = follower(state, path)
    asyncio.run(following.refresh())
    remove(path)
    # Of the same revision as the deleted one, so that the number alone would not tell.
    registry_of(path, "cook")
    asyncio.run(following.refresh())
    assert state.snapshot.adapters.keys() == {"cook"}
    with Registry.open(path) as registry:
        registry.set_tags("cook", ["spicy"])
    asyncio.run(following.refresh())
    assert state.snapshot.tags_of("cook") == ("spicy",)


def test_many_restored_registries_are_each_followed(state: ServerState, tmp_path: Path) -> None:
    # A deleted file's number is given to the next one, unless somebody has it open.
    path = registry_of(tmp_path / "registry.db", "first")
    following = follower(state, path)
    asyncio.run(following.refresh())
    for number in range(10):
        remove(path)
        registry_of(path, f"r{number}")
        asyncio.run(following.refresh())
        assert state.snapshot.adapters.keys() == {f"r{number}"}


def test_a_link_that_points_elsewhere_is_followed(state: ServerState, tmp_path: Path) -> None:
    link = tmp_path / "current.db"
    for name in ("code", "cook"):
        (tmp_path / name).mkdir()
        registry_of(tmp_path / name / "registry.db", name)
    link.symlink_to(tmp_path / "code" / "registry.db")
    following = follower(state, link)
    asyncio.run(following.refresh())
    assert state.snapshot.adapters.keys() == {"code"}
    link.unlink()
    link.symlink_to(tmp_path / "cook" / "registry.db")
    asyncio.run(following.refresh())
    assert state.snapshot.adapters.keys() == {"cook"}
    assert state.snapshot.location == Location(tmp_path / "cook" / "registry.db")


@pytest.mark.parametrize("restore", [shutil.copyfile, shutil.move])
def test_a_backup_that_takes_the_files_place_is_followed(
    state: ServerState, tmp_path: Path, restore: Callable[[Path, Path], object]
) -> None:
    path = registry_of(tmp_path / "registry.db", "code")
    backup = tmp_path / "backup.db"
    shutil.copy(path, backup)
    following = follower(state, path)
    asyncio.run(following.refresh())
    with Registry.open(path) as registry:
        registry.remove_adapter("code")
        asyncio.run(following.refresh())
        assert state.snapshot.adapters.keys() == set()
    restore(backup, path)
    asyncio.run(following.refresh())
    assert state.snapshot.adapters.keys() == {"code"}


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"name,score\n" * 800])
def test_a_registry_that_is_damaged_takes_nothing_away(state: ServerState, tmp_path: Path, content: bytes) -> None:
    path = registry_of(tmp_path / "registry.db", "code")
    backup = shutil.copy(path, tmp_path / "backup.db")
    following = follower(state, path)
    asyncio.run(following.refresh())
    path.write_bytes(content)
    asyncio.run(following.refresh())
    assert state.snapshot.adapters.keys() == {"code"}
    assert not following.health.reachable
    shutil.copyfile(backup, path)
    asyncio.run(following.refresh())
    assert following.health.reachable


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_file_is_refused_at_once_and_takes_nothing_away(
    state: ServerState, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = registry_of(tmp_path / "registry.db", "code")
    following = follower(state, path)
    asyncio.run(following.refresh())
    remove(path)
    make(path)
    start = time.monotonic()
    asyncio.run(following.refresh())
    assert time.monotonic() - start < 1
    assert state.snapshot.adapters.keys() == {"code"}
    assert not following.health.reachable


@pytest.mark.parametrize(
    ("column", "value"),
    [("created_at", "5"), ("target_modules", "'5'"), ("base_model", "CAST(x'ff' AS TEXT)")],
)
def test_a_row_that_cannot_be_read_does_not_end_the_watch(
    state: ServerState, tmp_path: Path, column: str, value: str
) -> None:
    path = registry_of(tmp_path / "registry.db", "code")
    following = follower(state, path)
    asyncio.run(following.refresh())

    def change(statement: str, revision: int) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)
            connection.execute(f"UPDATE traitroute_meta SET revision = {revision}")
        asyncio.run(following.refresh())

    change(f"UPDATE adapters SET {column} = {value}, revision = 9", 9)
    assert state.snapshot.adapters.keys() == {"code"}
    assert not following.health.reachable
    change("DELETE FROM adapters", 10)
    assert following.health.reachable and state.snapshot.adapters.keys() == set()


def test_a_registry_that_gives_no_answer_counts_as_lost_until_it_does(
    state: ServerState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "ANSWER_S", 0.1)
    path, mended = registry_of(tmp_path / "registry.db", "code"), threading.Event()

    def hang() -> Registry:
        mended.wait()
        return Registry.open(path, read_only=True)

    async def run() -> None:
        following = RegistryWatcher(state, hang, lambda *_: None)
        await following.refresh()
        assert not following.health.reachable
        assert state.snapshot.no_router == "no-profile: the registry cannot be read"
        mended.set()
        monkeypatch.setattr(following_module, "ANSWER_S", 10.0)
        await following.refresh()
        assert following.health.reachable

    asyncio.run(run())
    assert state.snapshot.adapters.keys() == {"code"}


def test_a_server_ends_while_its_registry_gives_no_answer(
    state: ServerState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "ANSWER_S", 0.1)
    mended = threading.Event()
    given_up = threading.Timer(20, mended.set)
    given_up.start()

    def hang() -> Registry:
        mended.wait()
        return Registry.create(tmp_path / "registry.db")

    async def run() -> None:
        following = RegistryWatcher(state, hang, lambda *_: None)
        await following.start()
        await following.stop()

    asyncio.run(run())
    assert not mended.is_set()
    mended.set()
    given_up.cancel()


READER = """
import asyncio, os, sys, tempfile
from pathlib import Path
from traitroute.adapters import Registry
from traitroute.serving.watcher import RegistryWatcher
from traitroute.serving.state import ServerState

def follow(path):
    state = ServerState()
    return state, RegistryWatcher(state, lambda: Registry.open(path, read_only=True), lambda *_: None)

async def run(path):
    state, following = follow(path)
    await following.start()
    said = None
    while True:
        now = (following.health.reachable, *sorted(state.snapshot.adapters))
        if now != said:
            print(*now, flush=True)
        said = now
        await asyncio.sleep(0.01)

# What is imported on first use may lie where nobody else may read.
with tempfile.TemporaryDirectory() as folder:
    Registry.create(f"{folder}/registry.db").close()
    asyncio.run(follow(f"{folder}/registry.db")[1].refresh())
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
asyncio.run(run(Path(sys.argv[1])))
"""
NOBODY = 65534


@dataclass
class Reader:
    """A server's process, of a user who may read the registry and not write it."""

    process: "subprocess.Popen[str]"

    def line(self, *, within_s: float = 2.0) -> str:
        """The next thing it says: whether the registry is within reach, and which adapters it offers."""
        assert self.process.stdout is not None
        there, _, _ = select.select([self.process.stdout], [], [], within_s)
        assert there, "it saw nothing in time"
        return self.process.stdout.readline().strip()


@contextmanager
def reader(path: Path) -> Iterator[Reader]:
    process = subprocess.Popen([sys.executable, "-c", READER, path, str(NOBODY)], stdout=subprocess.PIPE, text=True)
    try:
        yield Reader(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=[0o755, 0o777], ids=["folder read-only", "folder writable"])
def shared(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A registry of two adapters that others may read, in a folder of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to start a process of another user")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(request.param)
        yield registry_of(Path(folder) / "registry.db", "code", "cook")


def disable(path: Path, name: str) -> None:
    with Registry.open(path) as registry:
        registry.set_state(name, AdapterState.DISABLED)


WRITER = """
import os, sys
from traitroute.adapters import AdapterState, Registry
Registry.open(sys.argv[1]).set_state("code", AdapterState.DISABLED)
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_who_may_only_read_sees_what_is_written_and_leaves_nothing_behind(shared: Path) -> None:
    with reader(shared) as server:
        assert server.line(within_s=60) == "True code cook"
        # Files of the reader's beside it would keep its owner, unless that is root, from writing.
        assert [each.name for each in shared.parent.iterdir()] == ["registry.db"]
        disable(shared, "code")
        assert server.line() == "True cook"
        with Registry.open(shared) as stays:
            stays.set_state("cook", AdapterState.DISABLED)
            assert server.line() == "True"
            stays.enable("code")
            assert server.line() == "True code"
        with Registry.open(shared) as comes_later:
            comes_later.enable("cook")
        assert server.line() == "True code cook"
        subprocess.run([sys.executable, "-c", WRITER, shared], check=False)
        assert server.line() == "True cook"


@pytest.mark.slow
def test_what_cannot_be_followed_is_not_called_current(shared: Path) -> None:
    subprocess.run([sys.executable, "-c", WRITER, shared], check=False)
    # So it is where somebody copied two of the three files.
    shared.with_name("registry.db-shm").unlink()
    with reader(shared) as server:
        assert server.line(within_s=60) == "False"
        disable(shared, "cook")
        assert server.line() == "True"
