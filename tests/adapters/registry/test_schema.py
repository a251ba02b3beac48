"""Which files open as a registry, and how the others are refused."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from traitroute.adapters import Adapter, DatabaseError, Registry, RegistryError
from traitroute.adapters.registry.schema import SCHEMA_VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A new registry in a folder whose name needs quoting in a URI."""
    path = tmp_path / "odd %41?#name" / "team.db"
    Registry.create(path).close()
    return path


def execute(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql).fetchall()


def adapter(**changes: object) -> Adapter:
    digest = "0" * 64
    fields = {"name": "a", "base_model": "tiny", "base_digest": digest, "weights_digest": digest}
    return Adapter.model_validate(fields | {"rank": 1, "target_modules": ["q"]} | changes)


def test_a_new_registry_is_one_file_in_wal_mode(path: Path) -> None:
    assert execute(path, "PRAGMA journal_mode") == [("wal",)]
    assert [file.name for file in path.parent.iterdir()] == ["team.db"]


def test_the_weights_lie_beside_the_file(path: Path) -> None:
    with Registry.open(path) as registry:
        assert registry.weights.root == path.parent / "team.weights"


def test_create_opens_a_registry_that_is_there(path: Path) -> None:
    with Registry.create(path) as registry:
        registry.add_adapter(adapter())
    with Registry.create(path) as registry:
        assert [each.name for each in registry.adapters()] == ["a"]


def test_concurrent_creation_ends_in_one_registry(tmp_path: Path) -> None:
    def add(name: str) -> None:
        with Registry.create(tmp_path / "team.db") as registry:
            registry.add_adapter(adapter(name=name))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, "abcdefgh"))
    with Registry.open(tmp_path / "team.db") as registry:
        assert [each.name for each in registry.adapters()] == list("abcdefgh")


def test_no_file_is_reported_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"no registry at .*absent\.db"):
        Registry.open(tmp_path / "absent.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "name,score\n"])
def test_a_file_that_is_not_sqlite_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(content)
    for attempt in (Registry.open, Registry.create):
        with pytest.raises(RegistryError, match="not an SQLite file"):
            attempt(file)
    assert file.read_text() == content


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="is a folder"):
        Registry.open(tmp_path)


def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    execute(tmp_path / "other.db", "CREATE TABLE adapters (name TEXT)")
    with pytest.raises(RegistryError, match="not TraitRoute's"):
        Registry.create(tmp_path / "other.db")


def test_a_foreign_application_id_is_refused(path: Path) -> None:
    execute(path, "UPDATE traitroute_meta SET application = 'other'")
    with pytest.raises(RegistryError, match="not TraitRoute's"):
        Registry.open(path)


def test_a_newer_schema_asks_for_an_upgrade(path: Path) -> None:
    newer = SCHEMA_VERSION + 1
    execute(path, f"UPDATE traitroute_meta SET schema_version = {newer}")
    execute(path, "ALTER TABLE traitroute_meta DROP COLUMN revision")
    message = f"a newer TraitRoute: schema {newer}, this version reads {SCHEMA_VERSION}; upgrade"
    with pytest.raises(RegistryError, match=message):
        Registry.open(path)


def test_a_damaged_file_is_reported(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 8000)
    with pytest.raises(DatabaseError, match=r"it is damaged .*backup"):
        Registry.open(path)


def test_a_read_only_registry_sees_writes_but_makes_none(path: Path) -> None:
    with Registry.open(path) as writer, Registry.open(path, read_only=True) as reader:
        writer.add_adapter(adapter())
        assert reader.adapter("a") == writer.adapter("a")
        with pytest.raises(RegistryError, match="read-only"):
            reader.add_adapter(adapter(name="b"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the root user may write anywhere")
def test_a_registry_in_a_folder_without_write_access_can_be_read(path: Path) -> None:
    path.parent.chmod(0o555)
    try:
        with Registry.open(path, read_only=True) as registry:
            assert registry.adapters() == []
    finally:
        path.parent.chmod(0o755)


def test_timestamps_come_back_as_utc(path: Path) -> None:
    local = datetime(2025, 1, 1, 12, 30, tzinfo=timezone(timedelta(hours=5)))
    with Registry.open(path) as registry:
        registry.add_adapter(adapter(created_at=local))
        created_at = registry.adapter("a").created_at
    assert created_at == local
    assert created_at.utcoffset() == timedelta(0)
