"""Errors of a database are explained by its own codes: on real locks, full disks, damaged pages and refusals."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from traitroute.adapters import Adapter, BusyError, DatabaseError, Feedback, Registry, RegistryError
from traitroute.adapters.registry import sqlite as sqlite_file
from traitroute.adapters.registry.database import translated_errors
from traitroute.adapters.registry.schema import BASELINE, SCHEMA_VERSION

NOBODY = 65534


def adapter(name: str = "code") -> Adapter:
    fields = {"name": name, "base_model": "tiny", "base_digest": "0" * 64, "rank": 4}
    return Adapter.model_validate(fields | {"weights_digest": "1" * 64, "target_modules": ("q_proj",)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A registry of one adapter in a file."""
    path = tmp_path / "registry.db"
    with Registry.create(path) as registry:
        registry.add_adapter(adapter())
    return path


HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("BEGIN EXCLUSIVE")
connection.execute("UPDATE traitroute_meta SET revision = revision")
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def locked(path: Path, *, how: str = "") -> Iterator[None]:
    """Another process holds the file."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, how], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield
    finally:
        process.kill()
        process.communicate()


def test_a_locked_file_is_reported_as_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.1)
    message = "it is locked by another process .*: try again"
    with locked(path), Registry.open(path) as registry:
        assert registry.adapter("code").tags == ()
        with pytest.raises(BusyError, match=message):
            registry.set_tags("code", ["x"])
    with locked(path, how="PRAGMA locking_mode=EXCLUSIVE"):
        for read_only in (True, False):
            with pytest.raises(BusyError, match=message):
                Registry.open(path, read_only=read_only)
    with Registry.open(path) as registry:
        assert registry.set_tags("code", ["x"]).tags == ("x",)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder]
    with suppress(OSError):
        if subprocess.run(mount, check=False, capture_output=True).returncode == 0:
            yield folder
            subprocess.run(["umount", "--lazy", folder], check=True)
            return
    pytest.skip("needs the right to mount a disk")


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "rest").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_is_reported_as_full(small_disk: Path) -> None:
    path = small_disk / "registry.db"
    with Registry.create(path) as registry:
        registry.add_adapter(adapter())
        fill(small_disk)
        with pytest.raises(DatabaseError, match=r"its disk is full .*: free some space") as caught:
            for _ in range(100):
                registry.set_tags("code", ["x" * 60])
        assert not isinstance(caught.value, BusyError)
    fill(small_disk)
    for attempt in (
        lambda: Registry.open(path, read_only=True),
        lambda: Registry.create(small_disk / "new.db"),
    ):
        with pytest.raises(DatabaseError, match="its disk is full"):
            attempt()
    (small_disk / "rest").unlink()
    with Registry.open(path) as registry:
        assert registry.set_tags("code", ["y"]).tags == ("y",)


def test_a_disk_that_takes_no_more_is_not_called_damage(path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Registry.open(path) as registry:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
        try:
            with pytest.raises(DatabaseError, match=r"its disk .*over a quota"):
                registry.set_tags("code", ["x"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert registry.set_tags("code", ["x"]).tags == ("x",)


def test_damaged_pages_are_reported_as_damage(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'adapters'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    damaged = pytest.raises(DatabaseError, match=r"it is damaged .*: restore it from a backup")
    with Registry.open(path) as registry, damaged:
        registry.adapters()


def test_a_file_that_becomes_something_else_is_reported(path: Path) -> None:
    with Registry.open(path, read_only=True) as registry:
        registry.revision()
    for content in (b"SQLite format 3\0" + b"\xff" * 8000, b"name,score\n" * 800, b""):
        path.write_bytes(content)
        with pytest.raises(RegistryError, match="not an SQLite file"):
            Registry.open(path)


def test_a_missing_table_is_reported(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE replacements")
    changed = pytest.raises(DatabaseError, match="its tables are not as they were made")
    with Registry.open(path) as registry, changed:
        registry.replacements()


AS_NOBODY = """
import os, sys, tempfile
from traitroute.adapters import DatabaseError, Registry
from traitroute.adapters.registry import schema
schema.BASELINE = int(sys.argv[4])
# What is imported on first use may lie where nobody else may read.
with tempfile.TemporaryDirectory() as folder, Registry.create(f"{folder}/registry.db") as warm:
    warm.adapters()
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
try:
    with Registry.open(sys.argv[1], read_only=sys.argv[3] == "True") as registry:
        registry.set_tags("code", ["x"])
except DatabaseError as exc:
    print(exc)
"""


def as_nobody(path: Path, *, read_only: bool = False, baseline: int = BASELINE) -> str:
    """The message for a user who may write neither the registry nor its folder."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to start a process of another user")
    # Others may not enter the folders of tests.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        there = shutil.copy2(path, folder)
        command = [sys.executable, "-c", AS_NOBODY, there, str(NOBODY), str(read_only), str(baseline)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (0o644, "it may not be written from here"),
        (0o600, "cannot be read (Permission denied)"),
    ],
)
def test_missing_permissions_are_reported(path: Path, mode: int, message: str) -> None:
    path.chmod(mode)
    assert message in as_nobody(path)


@pytest.mark.slow
def test_an_older_registry_that_may_only_be_read_says_that_it_must_be_migrated(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE traitroute_meta SET schema_version = {SCHEMA_VERSION - 1}")
    message = as_nobody(path, read_only=True, baseline=SCHEMA_VERSION - 1)
    assert "it may not be written from here" in message
    assert f"its schema {SCHEMA_VERSION - 1} must become {SCHEMA_VERSION} before it can be read" in message


@pytest.fixture
def url(postgres: Any) -> str:
    """A registry of one adapter in a database."""
    url = postgres.new_database()
    with Registry.create(url) as registry:
        registry.add_adapter(adapter())
    return url


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def as_user(url: str, user: str) -> str:
    return url.replace("tester@", f"{user}@")


def test_a_locked_table_is_reported_as_locked(url: str) -> None:
    database = make_url(url).database
    execute(url, f"ALTER DATABASE {database} SET lock_timeout = '100ms'")
    engine = create_engine(url)
    with engine.begin() as holder, Registry.open(url) as registry:
        holder.exec_driver_sql("LOCK TABLE adapters IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BusyError, match="it is locked by another process"):
            registry.adapters()
    engine.dispose()


def test_a_database_that_may_not_be_written_is_reported(url: str) -> None:
    database = make_url(url).database
    execute(url, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    refused = pytest.raises(DatabaseError, match=r"may not be written .*not a standby")
    with Registry.open(url) as registry, refused:
        registry.set_tags("code", ["x"])


def test_each_reason_why_a_server_refuses_a_connection_is_reported(postgres: Any, url: str) -> None:
    execute(
        url,
        "CREATE ROLE strange LOGIN PASSWORD 'right'",
        "CREATE ROLE crowd LOGIN CONNECTION LIMIT 0",
        "CREATE ROLE poor LOGIN",
    )
    rules = postgres.folder / "data" / "pg_hba.conf"
    rules.write_text(f"local all strange scram-sha-256\n{rules.read_text()}")
    execute(url, "SELECT pg_reload_conf()")
    for given, error, message in (
        (as_user(url, "strange:wrong"), DatabaseError, "does not let us in .*check user and"),
        (as_user(url, "strange"), DatabaseError, "does not let us in"),
        (as_user(url, "unheard"), DatabaseError, "does not let us in"),
        (as_user(url, "crowd"), BusyError, "too many use it at once"),
        (as_user(url, "poor"), DatabaseError, "lacks a right there .*GRANT"),
        (url.replace("/db", "/absent"), DatabaseError, "no such database .*createdb"),
        (f"{url}&port=1", BusyError, "cannot be reached .*check that the server runs"),
        (f"{url}&odd=1", DatabaseError, "an option that is not known"),
        (f"{url}&port=odd", RegistryError, "hosts and ports"),
    ):
        with pytest.raises(error, match=message) as caught:
            Registry.open(given)
        assert isinstance(caught.value, error) and "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ("53100", DatabaseError, "its disk is full"),
        ("53300", BusyError, "too many use it"),
        ("40P01", BusyError, "locked by another process"),
        ("40001", BusyError, "locked by another process"),
        ("57014", BusyError, "gave up waiting"),
        ("57P01", BusyError, "cannot be reached"),
        ("58030", DatabaseError, "its disk cannot be read or written"),
        ("XX001", DatabaseError, "it is damaged"),
        ("42501", DatabaseError, "lacks a right"),
        ("P0001", DatabaseError, "its database reports an error"),
    ],
)
def test_each_code_of_postgresql_is_explained(url: str, state: str, error: type[DatabaseError], message: str) -> None:
    raised = text(f"DO $$ BEGIN RAISE EXCEPTION 'as it is' USING ERRCODE = '{state}'; END $$")
    engine = create_engine(url)
    explained = pytest.raises(DatabaseError, match=rf"here: .*{message}.* \(as it is")
    with explained as caught, translated_errors("here"), engine.begin() as connection:
        connection.execute(raised)
    assert type(caught.value) is error
    engine.dispose()


def test_what_is_no_fault_of_the_database_keeps_its_cause(registry: Registry) -> None:
    kept = Feedback(token="t", adapter=None, predicted_gain=0.0, profile_version=1)
    registry.put_feedback(kept)
    with pytest.raises(RegistryError, match="is there already"):
        registry.put_feedback(kept)
