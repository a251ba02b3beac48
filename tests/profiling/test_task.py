"""Tasks: rows rendered by templates, checked before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from traitroute.adapters import SuiteError
from traitroute.profiling.rows import FolderSource
from traitroute.profiling.task import Example, Task

ROWS = [
    {"input": "I loved it", "target": "positive", "label": "positive"},
    {"input": "I left early", "target": "negative", "label": "negative"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mood").mkdir()
    for split in ("train", "test"):
        lines = "\n".join(map(json.dumps, ROWS))
        (tmp_path / "mood" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def make(folder: Path, **changes: Any) -> Task:
    settings = {"name": "mood", "rows": FolderSource(folder=folder)} | changes
    return Task(**settings)


def test_rows_are_rendered_through_the_templates(folder: Path) -> None:
    task = make(folder, prompt="Mood?\n{{ input }}\n", target="It is {{ target }}.")
    assert task.test_examples[0] == Example(
        prompt="Mood?\nI loved it", target="It is positive.", answer="positive"
    )


def test_target_is_the_answer_where_a_row_has_neither_answer_nor_label(folder: Path) -> None:
    (folder / "mood" / "test.jsonl").write_text('{"input": "a", "target": "b"}', encoding="utf-8")
    assert make(folder).test_examples[0].answer == "b"


def test_label_outside_the_list_is_named_with_its_row(folder: Path) -> None:
    task = make(folder, metric="label", labels=("positive", "mixed"))
    with pytest.raises(SuiteError, match=r"mood: test row 2 is labelled 'negative', .*'mixed'"):
        _ = task.test_examples


def test_template_naming_an_unknown_column_says_which_columns_there_are(folder: Path) -> None:
    with pytest.raises(SuiteError, match=r"test row 1 .*'text' is undefined.*'input', 'label'"):
        _ = make(folder, prompt="{{ text }}").test_examples


@pytest.mark.parametrize("prompt", ["{{ input + 1 }}", "{{ 1 / 0 }}", "{{ ''.__class__.mro() }}"])
def test_template_that_fails_names_its_row(folder: Path, prompt: str) -> None:
    with pytest.raises(SuiteError, match=r"template .*test row 1"):
        _ = make(folder, prompt=prompt).test_examples


@pytest.mark.parametrize("metric", ["number", "json"])
def test_answer_that_no_output_can_match_is_refused(folder: Path, metric: str) -> None:
    task = make(folder, metric=metric)
    with pytest.raises(SuiteError, match=rf"'positive' of test row 1 by the metric \"{metric}\""):
        _ = task.test_examples


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"metric": "label"}, "needs the list of labels"),
        ({"source": True, "train": 0}, 'set "train" above 0'),
        ({"prompt": "{{ input"}, "not valid Jinja2"),
        ({"name": "base"}, "reserved"),
        ({"test": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictory_settings_are_refused(
    folder: Path, changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(ValidationError, match=part):
        make(folder, **changes)


def test_digest_follows_what_a_measurement_depends_on_and_nothing_else(folder: Path) -> None:
    digest = make(folder).digest
    assert digest == make(folder, train=1, source=True).digest
    others = [make(folder, metric="text"), make(folder, max_tokens=5), make(folder, test=1)]
    assert digest not in {other.digest for other in others}


def test_a_source_of_one_class_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="there is one class only, 'yes'"):
        Task(name="t", rows=FolderSource(folder=folder), labels=("yes",), metric="label")


def test_training_rows_of_one_class_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    row = '{"input": "a", "target": "yes", "label": "yes"}\n'
    (tmp_path / "t" / "train.jsonl").write_text(row * 3)
    task = Task(name="t", rows=FolderSource(folder=tmp_path), labels=("no", "yes"), metric="label")
    with pytest.raises(SuiteError, match="all 3 training rows are of one class, 'yes'"):
        _ = task.training_examples


def test_a_label_that_the_target_template_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    rows = [{"input": "a", "target": "", "label": label} for label in ("good", "bad")]
    (tmp_path / "t" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = Task(
        name="t",
        rows=FolderSource(folder=tmp_path),
        target="{{ {'good': 'yes'}[label] }}",
        labels=("good", "bad"),
        metric="label",
    )
    with pytest.raises(SuiteError, match=r"target template .*row 2 lacks: .*no attribute 'bad'"):
        _ = task.training_examples
