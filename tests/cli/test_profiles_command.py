"""`traitroute profiles` and `adapters measure`: what they show, and what bad input is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import Registry
from traitroute.profiling.versions import Reference, difference

Run = Callable[..., Any]


def test_versions_are_listed_with_how_they_were_made(run: Run, two_versions: Path) -> None:
    shown = run("profiles", "list", "--registry", two_versions).stdout
    assert "fitted" in shown
    assert "an adapter joined" in shown


def test_a_task_loses_whose_requests_go_to_an_adapter_that_was_measured_to_gain_less(two_versions: Path) -> None:
    texts = ["fix this compiler error a", "fix this compiler error b", "bake bread without yeast a"]
    with Registry.open(two_versions, read_only=True) as registry:
        old, new = registry.profile(1), registry.profile(2)
        found = difference(registry, old, new, Reference(texts, ["coder", "log", "cook"]))
    # Where `fresh` takes over from the coder, it was measured to gain nothing.
    assert [(each.before, each.after) for each in found.moved] == [("coder", "fresh")] * 2
    first, *others = found.kinds
    # The second request is of no task, and nearest to the coder's.
    assert (first.kind, first.requests, first.changed, first.loses) == ("coder", 2, 2, True)
    assert (first.before, first.after) == (pytest.approx(0.9), 0)
    assert [(each.kind, each.changed, each.loses) for each in others] == [("cook", 0, False)]


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
