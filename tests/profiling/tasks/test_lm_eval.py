"""Rows of lm-evaluation-harness tasks, taken from task files over local data: no network."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import SuiteError
from traitroute.profiling import Task
from traitroute.profiling.tasks.sources import HarnessSource, Row
from traitroute.profiling.tasks.text_files import check_yaml

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")

CAPITALS = [
    {"q": "Capital of France?", "options": ["Rome", "Paris"], "gold": 1},
    {"q": "Capital of Italy?", "options": ["Rome", "Lyon"], "gold": 0},
]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}\nAnswer:",
    "doc_to_choice": "options",
    "doc_to_target": "gold",
}


def harness_task(folder: Path, rows: list[dict[str, Any]], **config: Any) -> HarnessSource:
    """A harness task `local_task` whose splits both hold `rows`."""
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    files = {"train": str(data), "test": str(data)}
    spec = {
        "task": "local_task",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "training_split": "train",
        "test_split": "test",
        "output_type": "generate_until",
        "metric_list": [{"metric": "acc" if "doc_to_choice" in config else "exact_match"}],
    }
    tasks = folder / "tasks"
    tasks.mkdir()
    # JSON is YAML.
    (tasks / "local_task.yaml").write_text(json.dumps(spec | config))
    return HarnessSource(lm_eval="local_task", include_path=tasks)


def load(source: HarnessSource, split: Any = "test", count: int = 10) -> list[Row]:
    return source.load("column", split, count, seed=0)


def test_generated_answers_become_targets(tmp_path: Path) -> None:
    rows = [{"q": "2 + 2", "a": ["4", "four"]}, {"q": "1 + 1", "a": ["2", "two"]}]
    source = harness_task(tmp_path, rows, description="Work out.\n\n", doc_to_text="Q: {{q}}\nA:", doc_to_target="a")
    assert load(source)[0] == {"input": "Work out.\n\nQ: 2 + 2\nA:", "target": "4", "doc": rows[0]}


def test_choices_that_differ_are_listed_and_answered_by_letter(tmp_path: Path) -> None:
    first, second = load(harness_task(tmp_path, CAPITALS, **CHOICE))
    assert first["input"] == ("Capital of France?\nA. Rome\nB. Paris\nAnswer with the letter of the right choice.")
    assert (first["label"], first["target"], first["choices"]) == ("B", "B", ["A", "B"])
    assert second["label"] == "A"


def test_choices_that_are_the_same_are_the_labels(tmp_path: Path) -> None:
    rows = [{"q": "It rained.", "gold": 0}, {"q": "It snowed up.", "gold": 1}]
    config = CHOICE | {"doc_to_choice": [" yes", " no"]}
    first, second = load(harness_task(tmp_path, rows, **config))
    assert first.pop("doc") == rows[0]
    assert first == {"input": "It rained.\nAnswer:", "target": "yes", "label": "yes", "choices": ["yes", "no"]}
    assert second["label"] == "no"


def test_gold_choice_given_as_text_is_found(tmp_path: Path) -> None:
    rows = [row | {"gold": row["options"][row["gold"]]} for row in CAPITALS]
    config = CHOICE | {"doc_to_target": "{{gold}}"}
    assert [row["label"] for row in load(harness_task(tmp_path, rows, **config))] == ["B", "A"]


def test_harness_task_is_a_column_like_any_other(tmp_path: Path) -> None:
    source = harness_task(tmp_path, CAPITALS, **CHOICE)
    task = Task.model_validate(
        {"name": "capitals", "rows": source.model_dump(mode="json"), "metric": "label", "labels": ["A", "B"]}
    )
    assert [example.answer for example in task.test_examples] == ["B", "A"]


def test_sample_is_seeded(tmp_path: Path) -> None:
    rows = [{"q": str(i), "a": str(i)} for i in range(30)]
    source = harness_task(tmp_path, rows, doc_to_text="{{q}}?", doc_to_target="{{a}}")
    some = load(source, count=7)
    assert len(some) == 7
    assert load(source, count=7) == some
    assert load(source, split="train", count=0) == []


def test_missing_training_split_is_named(tmp_path: Path) -> None:
    source = harness_task(tmp_path, CAPITALS, doc_to_text="q", doc_to_target="q", training_split=None)
    with pytest.raises(SuiteError, match=r"'local_task' has no rows to train on"):
        load(source, split="train")


def test_gold_beyond_the_choices_is_refused(tmp_path: Path) -> None:
    rows = [*CAPITALS, {"q": "Capital of Spain?", "options": ["Rome", "Lyon"], "gold": 2}]
    with pytest.raises(SuiteError, match="number 2 of 2"):
        load(harness_task(tmp_path, rows, **CHOICE))


def test_data_that_cannot_be_loaded_names_the_task(tmp_path: Path) -> None:
    source = harness_task(tmp_path, CAPITALS, **CHOICE)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(SuiteError, match=r"'local_task': its data .* cannot be loaded"):
        load(source)


def test_tasks_that_ask_for_no_answer_are_refused(tmp_path: Path) -> None:
    source = harness_task(
        tmp_path,
        CAPITALS,
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{q}}",
        metric_list=[{"metric": "word_perplexity"}],
    )
    with pytest.raises(SuiteError, match="loglikelihood_rolling"):
        load(source)


@pytest.mark.slow
def test_unknown_name_lists_your_own_and_those_close_by(tmp_path: Path) -> None:
    folder = harness_task(tmp_path, CAPITALS, **CHOICE).include_path
    with pytest.raises(SuiteError, match=r"no task 'arc_esy' .*local_task, .*arc_easy"):
        load(HarnessSource(lm_eval="arc_esy", include_path=folder))
    with pytest.raises(SuiteError, match="'mmlu' is a group of harness tasks"):
        load(HarnessSource(lm_eval="mmlu", include_path=folder))


def test_missing_folder_of_tasks_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="nowhere is no folder"):
        load(HarnessSource(lm_eval="local_task", include_path=tmp_path / "nowhere"))


def test_missing_harness_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = harness_task(tmp_path, CAPITALS, **CHOICE)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(ImportError, match=r"pip install 'traitroute\[lm-eval\]'"):
        load(source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"task: local_task\noutput_type: [\n", "local_task.yaml is not YAML"),
        ("task: local_task\n".encode("utf-16"), "line 1: the file is UTF-16"),
        (b"task: local_task\ntask: other\n", "the key 'task' is given twice"),
    ],
)
def test_a_task_file_that_the_harness_would_pass_over_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "local_task.yaml").write_bytes(content)
    with pytest.raises(SuiteError, match=message):
        load(HarnessSource(lm_eval="local_task", include_path=tmp_path))


def test_tags_of_the_harness_are_left_to_it() -> None:
    check_yaml("process_docs: !function utils.process\n", "task.yaml")


def test_a_row_without_an_answer_is_named(tmp_path: Path) -> None:
    rows = [{"q": "x", "a": "y"}, {"q": "x", "a": None}]
    source = harness_task(tmp_path, rows, doc_to_text="{{q}}", doc_to_target="a")
    with pytest.raises(SuiteError, match="test row 2 cannot be read: its answer is null"):
        load(source)


def test_data_cut_short_is_told_by_its_cause(tmp_path: Path) -> None:
    row = {"q": "x", "a": "y"}
    source = harness_task(tmp_path, [row], doc_to_text="{{q}}", doc_to_target="a")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + '\n{"q":')
    with pytest.raises(SuiteError, match=r"JSON parse error|Missing a name"):
        load(source)
