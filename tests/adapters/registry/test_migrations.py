"""A registry of the baseline is migrated in place, with all it holds; development versions are refused with a cure."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from made_up_summary import made_up_summary
from sqlalchemy import create_engine
from traitroute.adapters import Adapter, AdapterState, Feedback, FeedbackSource, Registry, RegistryError
from traitroute.adapters.registry import schema

LATER = """
import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "{before}"


def upgrade() -> None:
    op.add_column("adapters", sa.Column("colour", sa.String, nullable=False, server_default="blue"))
    op.execute("UPDATE adapters SET colour = 'red' WHERE state = 'ready'")
"""


@pytest.fixture
def baseline(place: str) -> str:
    """A registry of today's schema with one of each."""
    with Registry.create(place) as registry:
        fields = {"base_model": "tiny", "base_digest": "f" * 64, "weights_digest": "a" * 64, "rank": 4}
        for name, state in (("math", AdapterState.READY), ("new", AdapterState.PENDING)):
            registry.add_adapter(
                Adapter.model_validate({"name": name, "target_modules": ("q",), "state": state} | fields)
            )
        registry.put_profile(b"\x00\xff", made_up_summary())
        registry.put_feedback(
            Feedback(token="t", adapter="math", predicted_gain=0.5, reporter=registry.reporter(b"key"))
        )
    return place


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A made-up next version, whose schema has one more column; its number."""
    number = schema.SCHEMA_VERSION + 1
    folder = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / f"schema_{number}.py").write_text(LATER.format(number=number, before=number - 1))
    monkeypatch.setattr(schema, "MIGRATIONS", folder)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", number)
    return number


@pytest.mark.parametrize("read_only", [False, True])
def test_an_older_registry_is_migrated_in_place(baseline: str, later: int, read_only: bool) -> None:
    with Registry.open(baseline, read_only=read_only) as registry:
        assert [(a.name, a.state) for a in registry.adapters()] == [("math", "ready"), ("new", "pending")]
        assert registry.profile(1).data == b"\x00\xff"
        stored = registry.find_feedback("t")
        assert stored is not None and stored.reporter == registry.reporter(b"key")
        assert registry.revision() == 3
    engine = create_engine(baseline if "://" in baseline else f"sqlite:///{baseline}")
    with engine.connect() as connection:
        query = "SELECT name, colour FROM adapters ORDER BY name"
        assert connection.exec_driver_sql(query).fetchall() == [("math", "red"), ("new", "blue")]
        assert connection.exec_driver_sql("SELECT schema_version FROM traitroute_meta").fetchall() == [(later,)]
    engine.dispose()


def test_many_openers_migrate_once(baseline: str, later: int) -> None:
    def names(_: int) -> list[str]:
        with Registry.open(baseline) as registry:
            return [each.name for each in registry.adapters()]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(names, range(16))) == [["math", "new"]] * 16


def test_a_migration_that_fails_changes_nothing(baseline: str, later: int) -> None:
    broken = LATER.format(number=later, before=later - 1) + "    raise ValueError('broken')\n"
    (schema.MIGRATIONS / f"schema_{later}.py").write_text(broken)
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            Registry.open(baseline)
    (schema.MIGRATIONS / f"schema_{later}.py").write_text(LATER.format(number=later, before=later - 1))
    with Registry.open(baseline) as registry:
        assert registry.adapter("math").rank == 4


def test_feedback_of_schema_9_becomes_its_users(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__", "schema_1*"))
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", folder)
        older.setattr(schema, "SCHEMA_VERSION", 9)
        Registry.create(place).close()
    engine = create_engine(place if "://" in place else f"sqlite:///{place}")
    with engine.begin() as connection:
        row = "'t', '2026-11-01 10:00:00', 'math', 0.5, 1, 0.75, '2026-11-02 10:00:00'"
        columns = "token, created_at, adapter, predicted_gain, profile_version, reward, rewarded_at"
        connection.exec_driver_sql(f"INSERT INTO feedback ({columns}) VALUES ({row})")
    engine.dispose()
    with Registry.open(place) as registry:
        [kept] = registry.feedback(source=FeedbackSource.USER)
        assert (kept.token, kept.adapter, kept.reward, kept.created_at.day) == ("t", "math", 0.75, 1)
        registry.put_feedback(Feedback(token="t", source=FeedbackSource.JUDGE, adapter="math", predicted_gain=0.5))


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("number", [1, 7])
def test_a_registry_of_a_development_version_is_refused_with_a_cure(
    tmp_path: Path, number: int, read_only: bool
) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE traitroute_meta (application TEXT, schema_version INTEGER, revision INTEGER)")
        connection.execute(f"INSERT INTO traitroute_meta VALUES ('traitroute', {number}, 41)")
    message = rf"development version before 0\.1\.0: schema {number}, .* make a new registry with `traitroute profile`"
    with pytest.raises(RegistryError, match=message):
        Registry.open(path, read_only=read_only)


def test_each_registry_hashes_keys_with_a_secret_of_its_own(tmp_path: Path) -> None:
    hashes = set()
    for name in ("a.db", "b.db"):
        with Registry.create(tmp_path / name) as registry:
            hashes.add(registry.reporter(b"a key"))
        with Registry.open(tmp_path / name, read_only=True) as registry:
            hashes.add(registry.reporter(b"a key"))
    assert len(hashes) == 2


def test_the_migrations_make_what_the_code_expects(place: str) -> None:
    Registry.create(place).close()
    engine = create_engine(place if "://" in place else f"sqlite:///{place}")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "traitroute_migrations", "compare_type": True}
        )
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_heads() == (str(schema.SCHEMA_VERSION),)
    engine.dispose()
