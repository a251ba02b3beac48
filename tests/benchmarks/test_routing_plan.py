"""What the routing benchmark measures, over a folder of anybody's tasks."""

import json
from pathlib import Path

import pytest
from routing.plan import read_folder_plan
from traitroute.adapters import SuiteError


def write_task(folder: Path, name: str, labels: tuple[str, ...]) -> None:
    (folder / name).mkdir()
    for part in ("train", "test"):
        rows = [{"input": f"{part} {name} {i}", "target": label, "label": label} for i in range(4) for label in labels]
        (folder / name / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_every_task_of_a_folder_is_asked_and_the_sources_are_trained(tmp_path: Path) -> None:
    write_task(tmp_path, "mood", ("good", "bad"))
    write_task(tmp_path, "spam", ("spam", "mail"))
    write_task(tmp_path, "topic", ("law", "food"))
    plan = read_folder_plan(tmp_path, ["spam", "topic"])
    assert [t.name for t in plan.sources] == ["spam", "topic"]
    assert {(a.kind, a.name) for a in plan.asked} == {
        ("main", "spam"),
        ("main", "mood"),
        ("main", "topic"),
    }
    assert len(plan.asked[0].conversations) == 8


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_task(tmp_path, "mood", ("good", "bad"))
    with pytest.raises(SuiteError, match="mod"):
        read_folder_plan(tmp_path, ["mod"])
