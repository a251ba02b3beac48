"""`traitroute adapters`: what is listed and shown, and registries that cannot be read."""

import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from traitroute.adapters import Registry

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]


def test_list_names_every_adapter_with_state_and_digest(run: Run, profiled: Path) -> None:
    ended = run("adapters", "list", "--registry", profiled)
    rows = [line.strip("│").split("│") for line in ended.stdout.splitlines() if "tiny" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert ended.returncode == 0
    assert [row[:2] for row in cells] == [
        ["coder", "ready"],
        ["cook", "ready"],
        ["critic", "ready"],
        ["fresh", "pending"],
    ]
    assert cells[0][2:] == ["lora", "8", "tiny", "1" * 12, "all"]


def test_show_gives_the_record_and_the_measured_gains(run: Run, profiled: Path) -> None:
    ended = run("adapters", "show", "cook", "--registry", profiled)
    lines = ended.stdout.splitlines()
    gains = {line.split()[1]: line.split()[-2] for line in lines if line.startswith("│")}
    assert ended.returncode == 0
    assert f"weights_digest: {'2' * 64}" in lines
    assert "target_modules: ['q_proj']" in lines
    assert gains == {"coder": "-0.10", "cook": "+0.90", "critic": "-0.10"}


@pytest.mark.parametrize(
    ("effect", "told"),
    [
        (None, "probe: not read yet; measuring reads it, and so does each server that loads the adapter"),
        (7.0, "probe: a change of 7 nats on the probe, noise 0.1, when it was measured, so it is applied"),
        (0.2, "probe: a change of 0.2 nats on the probe, noise 0.1, when it was measured, which is no proof, for"),
    ],
)
def test_show_says_what_the_probe_showed(run: Run, profiled: Path, effect: float | None, told: str) -> None:
    if effect is not None:
        with Registry.open(profiled) as registry:
            registry.set_effect(registry.adapter("fresh"), effect, 0.1)
    assert told in run("adapters", "show", "fresh", "--registry", profiled).stdout


def test_show_says_so_where_nothing_was_measured(run: Run, profiled: Path) -> None:
    ended = run("adapters", "show", "fresh", "--registry", profiled)
    assert ended.returncode == 0
    assert "not in the matrix of a profile" in ended.stdout


def test_an_unknown_adapter_is_met_with_the_nearest_name(refusal: Refusal, profiled: Path) -> None:
    line = refusal("adapters", "show", "codr", "--registry", profiled)
    assert "'codr'; did you mean 'coder'?" in line


def test_a_missing_registry_is_named(refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "nosuch.db"
    assert f"no registry at {path}" in refusal("adapters", "list", "--registry", path)
    assert not path.exists()


def test_another_kind_of_file_is_not_read_as_a_registry(refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("hello")
    assert "it is not an SQLite file" in refusal("adapters", "list", "--registry", path)


def test_a_database_of_another_application_is_not_a_registry(refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes (text TEXT)")
    database.close()
    assert "not TraitRoute's" in refusal("adapters", "list", "--registry", path)


def test_a_registry_of_a_newer_schema_asks_for_an_upgrade(refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    Registry.create(path).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE traitroute_meta SET schema_version = 99")
    database.close()
    line = refusal("adapters", "list", "--registry", path)
    assert "newer TraitRoute: schema 99" in line
    assert "upgrade" in line
