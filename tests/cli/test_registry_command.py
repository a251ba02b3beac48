"""`traitroute registry copy` moves a registry, once."""

from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import Registry
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
