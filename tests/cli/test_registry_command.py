"""`traitroute registry`: made or migrated, copied once, and what nothing names freed when asked to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import Registry
from traitroute.adapters.registry.schema import SCHEMA_VERSION
from traitroute.cli.main import app
from typer.testing import CliRunner


def test_a_registry_is_copied_into_an_empty_database(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAITROUTE_WEIGHTS", str(tmp_path / "weights"))
    source, target = str(tmp_path / "team.db"), postgres.new_database()
    with Registry.create(source) as registry:
        registry.put_task("imdb", "1" * 64, {"metric": "accuracy"})
    first = CliRunner().invoke(app, ["registry", "copy", source, target])
    assert (first.exit_code, "tasks: 1" in first.output) == (0, True)
    with Registry.open(target) as copied:
        assert copied.tasks() == {"imdb": {"metric": "accuracy"}}
    again = CliRunner().invoke(app, ["registry", "copy", source, target])
    assert "holds tasks already" in str(again.exception)


def test_weights_that_nothing_names_are_listed_and_removed_when_asked(
    tmp_path: Path, make_adapter: Callable[..., Path]
) -> None:
    with Registry.create(tmp_path / "team.db") as registry:
        folder = registry.weights.path(registry.weights.add(make_adapter()).digest)
    command = ["registry", "clean", "--registry", str(tmp_path / "team.db")]
    listed = CliRunner().invoke(app, command)
    assert folder.name[:20] in listed.output
    assert "may go now" not in listed.output
    assert "removed 0" in CliRunner().invoke(app, [*command, "--yes"]).output
    ready = CliRunner().invoke(app, [*command, "--grace-hours", "0"])
    assert "1 may go now" in ready.output
    assert folder.is_dir()
    gone = CliRunner().invoke(app, [*command, "--grace-hours", "0", "--yes"])
    assert "removed 1" in gone.output
    assert not folder.exists()
    assert "nothing that could go" in CliRunner().invoke(app, command).output


def test_a_registry_is_made_where_there_is_none_and_kept_where_there_is_one(tmp_path: Path) -> None:
    command = ["registry", "migrate", "--registry", str(tmp_path / "team.db")]
    assert f"has schema {SCHEMA_VERSION}" in CliRunner().invoke(app, command).output
    with Registry.open(tmp_path / "team.db") as registry:
        registry.put_task("imdb", "1" * 64, {"metric": "accuracy"})
    assert CliRunner().invoke(app, command).exit_code == 0
    with Registry.open(tmp_path / "team.db") as registry:
        assert registry.tasks() == {"imdb": {"metric": "accuracy"}}
