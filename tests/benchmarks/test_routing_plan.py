"""What the routing benchmark measures: data sets in several wordings, and a folder of anybody's tasks."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from routing.plan import (
    MEASURE,
    DataSet,
    as_written,
    in_turns,
    in_two_wordings,
    mixed_source,
    read_folder_plan,
    read_plan,
)
from traitroute.adapters import InputError, SuiteError
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


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Three data sets of whole prompts."""
    (folder := tmp_path / "prompts").mkdir()
    for name in ("people", "places", "dates"):
        write_prompts(folder / name, "ab")
        meta = {"metric": "text", "templates": ["a", "b"], "group": name}
        (folder / name / "META.json").write_text(json.dumps(meta))
    return folder


def write_plan(file: Path, **spec: object) -> Path:
    whole = {
        "base_model": "small",
        "training": {"learning_rate": 1e-3},
        "groups": {"where": ["places", "dates"]},
        "adapters": {"names": ["people"]},
        "agent": {"tasks": ["people"], "system": "You are asked.", "tools": "[]", "context": "Before."},
    }
    file.write_text(yaml.safe_dump(spec if "extends" in spec else whole | spec))
    return file


def test_a_plan_says_otherwise_than_the_one_it_extends(prompts: Path, tmp_path: Path) -> None:
    first = write_plan(tmp_path / "first.yaml")
    changes = {"base_model": "large.gguf", "sizes": {"test": 5, "train": 7}, "data_sets": ["dates", "people"]}
    second = write_plan(tmp_path / "second.yaml", extends="first.yaml", agent=None, **changes)
    small, large = (read_plan([prompts], tmp_path / file.stem, file) for file in (first, second))
    assert {(a.name, a.group) for a in small.asked if a.kind == "main"} == {
        ("people", "people"),
        ("places", "where"),
        ("dates", "where"),
    }
    assert len(small.asked) == 3 + 3
    assert (small.base_model, large.base_model) == ("small", "large.gguf")
    assert [(a.name, a.group, len(a.rows)) for a in large.asked] == [("dates", "where", 5), ("people", "people", 5)]
    assert [(s.name, len(s.examples)) for s in large.sources] == [("names", 7)]
    assert len(read_plan([prompts], tmp_path / "third", second, test=3).asked[0].rows) == 3


def test_a_data_set_that_a_plan_names_must_be_there(prompts: Path, tmp_path: Path) -> None:
    file = write_plan(tmp_path / "plan.yaml", data_sets=["people", "animals"])
    with pytest.raises(InputError, match="has the data set animals"):
        read_plan([prompts], tmp_path / "work", file)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", None])
def test_what_is_no_plan_is_told(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "plan.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=r"plan\.yaml is no plan.*give a file like measure\.yaml"):
        read_plan([], tmp_path / "work", file)


def test_the_plan_of_the_capable_base_model_is_wide_enough() -> None:
    whole = yaml.safe_load(MEASURE.read_text())
    spec = yaml.safe_load(MEASURE.with_name("measure_qwen.yaml").read_text())
    group_of = {name: group for group, names in whole["groups"].items() for name in names}
    sets = set(spec["data_sets"])
    assert len(sets) == len(spec["data_sets"]) >= 40
    assert len({group_of.get(name, name) for name in sets}) >= 36
    assert len(spec["adapters"]) >= 10 and spec["sizes"]["test"] >= 30
    assert {name for names in spec["adapters"].values() for name in names} <= sets
