"""`traitroute profiles` and `adapters measure`: what they show, and what bad input is told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import NewRow, Registry
from traitroute.router import RoutingProfile

Run = Callable[..., Any]


@pytest.fixture
def two_versions(profiled: Path, tmp_path: Path) -> Path:
    """The profile, and a second version that `fresh`, as good as the coder, has joined."""
    path = Path(shutil.copy(profiled, tmp_path / "registry.db"))
    with Registry.open(path) as registry:
        stored = registry.profile(1)
        routing = RoutingProfile.from_bytes(stored.data)
        grown = routing.with_adapter("fresh", routing.trait_scores[0] * np.float64(1.2))
        nothing = np.zeros(len(stored.summary.tasks))
        row = NewRow("fresh", "4" * 64, stored.summary.tasks, nothing, nothing, nothing.astype(int), ())
        summary = stored.summary.with_row(row)
        registry.admit(registry.adapter("fresh"), grown.to_bytes(), summary, parent=1)
    return path


def test_versions_are_listed_with_how_they_were_made(run: Run, two_versions: Path) -> None:
    shown = run("profiles", "list", "--registry", two_versions).stdout
    assert "fitted" in shown
    assert "an adapter joined" in shown


def test_diff_counts_the_decisions_that_changed(run: Run, two_versions: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.txt"
    asked.write_text("fix this compiler error a\nbake bread without yeast a\n")
    command = ("profiles", "diff", 1, 2, "--registry", two_versions, "--requests", asked)
    assert "1 of 2 decisions differ" in run(*command).stdout
    found = json.loads(run(*command, "--json").stdout)
    assert found == {"requests": 2, "changed": [{"request": 1, "before": "coder", "after": "fresh"}]}


def test_rollback_makes_a_new_version_of_an_old_one(run: Run, two_versions: Path) -> None:
    shown = run("profiles", "rollback", 1, "--registry", two_versions).stdout
    assert "version 3 holds what version 1 held" in shown
    with Registry.open(two_versions, read_only=True) as registry:
        assert registry.profile(3).data == registry.profile(1).data


def test_an_unknown_version_is_refused(refusal: Run, two_versions: Path) -> None:
    line = refusal("profiles", "rollback", 9, "--registry", two_versions)
    assert "no profile version 9; versions: 1, 2" in line


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ('{"input": "a"}', 'line 1: the row needs "target" as text'),
        ('{"input": "a", "target": "b"}\n{"input": 1, "target": "b"}', "line 2: the row needs"),
        ("", "holds no rows"),
        ("no json", "line 1: not JSON"),
        ('{"input": "\\ud83d", "target": "b"}', "line 1: \\ud83d is half a character"),
        ("[" * 100_000, "line 1: nested too deeply"),
    ],
)
def test_bad_training_rows_are_refused_by_line(
    refusal: Run, two_versions: Path, tmp_path: Path, rows: str, told: str
) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(rows)
    command = ("adapters", "measure", "fresh", "--registry", two_versions, "--rows", file)
    assert told in refusal(*command)


def test_an_unknown_adapter_is_not_measured(refusal: Run, two_versions: Path) -> None:
    line = refusal("adapters", "measure", "frehs", "--registry", two_versions)
    assert "did you mean 'fresh'?" in line


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("asked.jsonl", b'"a"\n{"text": "b"}', "asked.jsonl, line 2: a request is text"),
        ("asked.jsonl", b'"\\ud83d"', "asked.jsonl, line 1: \\ud83d is half a character"),
        ("asked.txt", "a\n".encode("utf-16"), "asked.txt, line 1: the file is UTF-16"),
    ],
)
def test_bad_requests_are_refused_by_line(
    refusal: Run, two_versions: Path, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    asked = ("--registry", two_versions, "--requests", tmp_path / name)
    assert told in refusal("profiles", "diff", 1, 2, *asked)


def test_empty_requests_are_refused(refusal: Run, two_versions: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text("\n")
    line = refusal("profiles", "diff", 1, 2, "--registry", two_versions, "--requests", asked)
    assert "holds no requests" in line
