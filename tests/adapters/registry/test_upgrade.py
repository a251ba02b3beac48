"""Registries of every released schema open, with all they held; and what migrations make is what the code expects."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect
from traitroute.adapters import AdapterState, Registry
from traitroute.adapters.registry.tables import SCHEMA_VERSION, metadata

DIGEST = "a" * 64
PIECE = sha256(b"\x00\xff").hexdigest()
RELEASED_1 = f"""
CREATE TABLE traitroute_meta (application VARCHAR(32) NOT NULL, schema_version INTEGER NOT NULL,
    revision INTEGER NOT NULL, PRIMARY KEY (application));
CREATE TABLE adapters (name VARCHAR(64) NOT NULL, base_model VARCHAR NOT NULL, base_digest VARCHAR(64) NOT NULL,
    weights_digest VARCHAR(64) NOT NULL, serving_id INTEGER NOT NULL, rank INTEGER NOT NULL,
    target_modules JSON NOT NULL, state VARCHAR(16) NOT NULL, source_task VARCHAR(64), created_at DATETIME NOT NULL,
    PRIMARY KEY (name));
CREATE INDEX ix_adapters_serving_id ON adapters (serving_id);
CREATE TABLE tasks (name VARCHAR(64) NOT NULL, digest VARCHAR(64) NOT NULL, spec JSON NOT NULL, PRIMARY KEY (name));
CREATE TABLE cells ("key" VARCHAR NOT NULL, adapter VARCHAR(64), task VARCHAR(64) NOT NULL, score FLOAT NOT NULL,
    outcomes BLOB NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE profiles (version INTEGER NOT NULL, data BLOB NOT NULL, summary JSON NOT NULL,
    created_at DATETIME NOT NULL, PRIMARY KEY (version));
INSERT INTO traitroute_meta VALUES ('traitroute', 1, 41);
INSERT INTO adapters VALUES ('math', 'tiny', '{DIGEST}', '{DIGEST}', 1073741824, 4, '["q"]', 'ready', 'gsm8k',
    '2026-01-02 03:04:05.000000');
INSERT INTO adapters VALUES ('new', 'tiny', '{DIGEST}', '{DIGEST}', 1073741824, 4, '["q"]', 'pending', NULL,
    '2026-01-02 03:04:05.000000');
INSERT INTO profiles VALUES (1, x'00ff', '{{"k": 1}}', '2026-01-02 03:04:06.000000');
"""
LATER = {
    2: "ALTER TABLE adapters ADD COLUMN method VARCHAR(16) NOT NULL DEFAULT 'lora'",
    3: "ALTER TABLE adapters ADD COLUMN tags JSON NOT NULL DEFAULT '[]'",
    4: """
CREATE TABLE traitroute_migrations (version_num VARCHAR(32) NOT NULL,
    CONSTRAINT traitroute_migrations_pkc PRIMARY KEY (version_num));
INSERT INTO traitroute_migrations VALUES ('4');
ALTER TABLE adapters ADD COLUMN uri VARCHAR;
ALTER TABLE adapters ADD COLUMN licence VARCHAR;
ALTER TABLE adapters ADD COLUMN note VARCHAR;
ALTER TABLE adapters ADD COLUMN version INTEGER DEFAULT '1' NOT NULL;
ALTER TABLE adapters ADD COLUMN changed_at DATETIME;
ALTER TABLE adapters ADD COLUMN changed_by VARCHAR;
ALTER TABLE adapters ADD COLUMN measured BOOLEAN DEFAULT 1 NOT NULL;
UPDATE adapters SET measured = false WHERE state = 'pending';
ALTER TABLE profiles ADD COLUMN origin VARCHAR(16) DEFAULT 'fit' NOT NULL;
ALTER TABLE profiles ADD COLUMN parent INTEGER;
CREATE TABLE replacements (name VARCHAR(64) NOT NULL, base_model VARCHAR NOT NULL, base_digest VARCHAR(64) NOT NULL,
    weights_digest VARCHAR(64) NOT NULL, serving_id INTEGER NOT NULL, rank INTEGER NOT NULL,
    target_modules JSON NOT NULL, method VARCHAR(16) DEFAULT 'lora' NOT NULL, state VARCHAR(16) NOT NULL,
    source_task VARCHAR(64), tags JSON DEFAULT '[]' NOT NULL, created_at DATETIME NOT NULL, uri VARCHAR,
    licence VARCHAR, note VARCHAR, version INTEGER DEFAULT '1' NOT NULL, changed_at DATETIME, changed_by VARCHAR,
    PRIMARY KEY (name));
CREATE INDEX ix_replacements_serving_id ON replacements (serving_id);
CREATE TABLE feedback (token VARCHAR(255) NOT NULL, created_at DATETIME NOT NULL, adapter VARCHAR(64),
    predicted_gain FLOAT NOT NULL, profile_version INTEGER, reward FLOAT, rewarded_at DATETIME, PRIMARY KEY (token));
CREATE INDEX ix_feedback_created_at ON feedback (created_at);
CREATE TABLE demand_windows (number INTEGER NOT NULL, created_at DATETIME NOT NULL, profile_version INTEGER NOT NULL,
    requests INTEGER NOT NULL, novel INTEGER NOT NULL, features BLOB NOT NULL, PRIMARY KEY (number));
""",
    5: """
UPDATE traitroute_migrations SET version_num = '5';
ALTER TABLE adapters ADD COLUMN revision INTEGER DEFAULT '0' NOT NULL;
ALTER TABLE profiles ADD COLUMN revision INTEGER DEFAULT '0' NOT NULL;
""",
    6: f"""
UPDATE traitroute_migrations SET version_num = '6';
CREATE TABLE pieces (digest VARCHAR(64) NOT NULL, data BLOB NOT NULL, PRIMARY KEY (digest));
ALTER TABLE profiles ADD COLUMN routing JSON DEFAULT '[]' NOT NULL;
ALTER TABLE profiles ADD COLUMN matrices JSON DEFAULT '[]' NOT NULL;
INSERT INTO pieces VALUES ('{PIECE}', x'00ff');
UPDATE profiles SET routing = '["{PIECE}"]';
ALTER TABLE profiles DROP COLUMN data;
INSERT INTO feedback VALUES ('t', '2026-01-02 03:04:05.000000', 'math', 0.5, 1, 1.0, '2026-01-02 03:04:06.000000');
""",
}


@pytest.fixture(params=[1, 2, 3, 4, 5, 6])
def released(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A registry as an earlier version left it."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(RELEASED_1)
        for version in range(2, request.param + 1):
            connection.executescript(LATER[version])
        connection.execute(f"UPDATE traitroute_meta SET schema_version = {request.param}")
    yield path


@pytest.mark.parametrize("read_only", [False, True])
def test_an_older_registry_is_upgraded_in_place(released: Path, read_only: bool) -> None:
    with Registry.open(released, read_only=read_only) as registry:
        found = registry.adapter("math")
        assert (found.method, found.tags, found.version, found.uri) == ("lora", (), 1, None)
        assert found.created_at.isoformat() == "2026-01-02T03:04:05+00:00"
        assert registry.profile(1).data == b"\x00\xff"
        assert registry.profile_history()[0].origin == "fit"
        assert registry.revision() == 41
    with closing(sqlite3.connect(released)) as connection:
        assert connection.execute("SELECT schema_version FROM traitroute_meta").fetchall() == [(SCHEMA_VERSION,)]


def test_only_measured_adapters_of_an_older_registry_are_enabled_as_ready(released: Path) -> None:
    with Registry.open(released) as registry:
        for name in ("math", "new"):
            registry.set_state(name, AdapterState.DISABLED)
        enabled = [registry.enable(name).state for name in ("math", "new")]
    assert enabled == [AdapterState.READY, AdapterState.PENDING]


def test_many_openers_upgrade_once(released: Path) -> None:
    def names(_: int) -> list[str]:
        with Registry.open(released) as registry:
            return [each.name for each in registry.adapters()]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(names, range(16))) == [["math", "new"]] * 16


def test_feedback_of_an_older_registry_is_kept_and_nobody_stands_for_it(released: Path) -> None:
    with Registry.open(released) as registry:
        told = registry.feedback()
        assert [(t.token, t.reward, t.giver) for t in told] in ([], [("t", 1.0, None)])
        assert len(registry.giver(b"a key")) == 32


def test_each_registry_hashes_keys_with_a_secret_of_its_own(tmp_path: Path) -> None:
    given = set()
    for name in ("a.db", "b.db"):
        with Registry.create(tmp_path / name) as registry:
            given.add(registry.giver(b"a key"))
        with Registry.open(tmp_path / name, read_only=True) as registry:
            given.add(registry.giver(b"a key"))
    assert len(given) == 2


def test_an_upgraded_registry_has_the_tables_of_a_new_one(released: Path, tmp_path: Path) -> None:
    Registry.create(tmp_path / "new.db").close()
    Registry.open(released).close()
    assert columns(released) == columns(tmp_path / "new.db")


def test_the_migrations_make_what_the_code_expects(tmp_path: Path) -> None:
    Registry.create(tmp_path / "new.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "traitroute_migrations", "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        assert context.get_current_heads() == (str(SCHEMA_VERSION),)
    engine.dispose()


def columns(path: Path) -> dict[str, list[tuple[str, str, bool]]]:
    engine = create_engine(f"sqlite:///{path}")
    look = inspect(engine)
    tables = {
        name: [(c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(name)]
        for name in look.get_table_names()
    }
    engine.dispose()
    return tables
