"""What the routing benchmark measures: data sets in several wordings, and a folder of anybody's tasks."""

import json
from collections import Counter
from pathlib import Path

import pytest
from routing.plan import DataSet, as_written, in_turns, in_two_wordings, mixed_source, read_folder_plan
from traitroute.adapters import SuiteError
from traitroute.profiling import Task


def write_task(folder: Path, name: str, labels: tuple[str, ...]) -> None:
    (folder / name).mkdir()
    for part in ("train", "test"):
        rows = [{"input": f"{part} {name} {i} {t}", "target": t, "label": t} for i in range(4) for t in labels]
        (folder / name / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_prompts(folder: Path, wordings: str, items: int = 12) -> DataSet:
    """A data set of whole prompts, each item in each wording."""
    folder.mkdir()
    for part in ("train", "test"):
        rows = [
            {"input": f"{folder.name} {w}? {part} {i}", "target": f"answer {i}", "template": w, "row": i}
            for i in range(items)
            for w in wordings
        ]
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return as_written(folder, "people", {"metric": "text"})


def test_items_come_once_each_before_any_comes_in_a_second_wording() -> None:
    rows = in_turns({"item": f"{i}", "wording": w} for i in range(9) for w in "abc")
    assert len(rows) == 27
    assert len({r["item"] for r in rows[:9]}) == 9
    assert Counter(r["wording"] for r in rows[:9]) == {"a": 3, "b": 3, "c": 3}
    assert rows == in_turns(reversed(rows))


def test_rows_asked_of_a_data_set_are_spread_over_its_wordings(tmp_path: Path) -> None:
    data = write_prompts(tmp_path / "people", "abcd")
    data.write(tmp_path / "rows", data.test[:8])
    asked = data.asked(tmp_path / "rows", 8)
    assert Counter(r["wording"] for r in asked.rows) == {"a": 2, "b": 2, "c": 2, "d": 2}
    assert len({r["item"] for r in asked.rows}) == 8
    assert [e.prompt for e in asked.task.test_examples] == [r["input"] for r in asked.rows]
    assert (asked.dataset, asked.group, asked.kind) == ("people", "people", "main")


def test_a_task_without_wordings_is_asked_in_two_and_no_item_in_both(tmp_path: Path) -> None:
    write_task(tmp_path, "mood", ("good", "bad"))
    task = Task.model_validate(
        {
            "name": "mood",
            "rows": {"folder": str(tmp_path)},
            "labels": ["good", "bad"],
            "metric": "label",
            "prompt": "Mood of {{ input }}?",
        }
    )
    data = in_two_wordings(task, "moods", "{{ input }}: good or bad?")
    for rows in (data.train, data.test):
        assert Counter(r["wording"] for r in rows) == {"a": 4, "b": 4}
        assert all(r["input"].startswith("Mood of") == (r["wording"] == "a") for r in rows)
        assert len({r["item"] for r in rows}) == len(rows)
    assert data.judged["labels"] == ("good", "bad")


def test_an_adapter_takes_as_many_rows_of_each_of_its_data_sets(tmp_path: Path) -> None:
    small, large = write_prompts(tmp_path / "small", "a", 5), write_prompts(tmp_path / "large", "ab", 40)
    source = mixed_source("general", [large, small], 60)
    from_small = [e for e in source.examples if e.prompt in {r["input"] for r in small.train}]
    assert source.datasets == ("large", "small")
    # The small one has five rows: the large one makes up for what it lacks.
    assert (len(source.examples), len(from_small)) == (60, 5)


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
