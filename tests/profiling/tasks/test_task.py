"""Tasks: rows rendered by templates, checked before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from traitroute.adapters import SuiteError
from traitroute.profiling.tasks.metrics.rules import Label
from traitroute.profiling.tasks.sources import FolderSource
from traitroute.profiling.tasks.suite import load_suite
from traitroute.profiling.tasks.task import Example, Task, check_distinct

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
    form = {"metric": "label", "labels": ("positive", "negative")}
    task = make(folder, prompt="Mood?\n{{ input }}\n", target="It is {{ target }}.", **form)
    assert task.test_examples[0] == Example(prompt="Mood?\nI loved it", target="It is positive.", answer="positive")


def test_tasks_that_would_share_their_cells_are_named(folder: Path) -> None:
    mood = make(folder)
    rows = FolderSource(folder=folder, dataset="mood")
    others = [make(folder, name="text", rows=rows, metric="text"), make(folder, name="short", rows=rows, max_tokens=9)]
    check_distinct([mood, *others], beside=[mood])
    twins = make(folder, name="feeling", rows=rows, score="lenient")
    with pytest.raises(SuiteError, match=r"tasks mood and feeling have the same rows, prompt, .*: leave one out"):
        check_distinct([mood, *others, twins])
    with pytest.raises(SuiteError, match="tasks mood and feeling"):
        check_distinct([twins], beside=[mood])
    check_distinct(others, beside=[mood, twins])


def test_target_is_the_answer_where_a_row_has_neither_answer_nor_label(folder: Path) -> None:
    (folder / "mood" / "test.jsonl").write_text('{"input": "a", "target": "b"}', encoding="utf-8")
    assert make(folder).test_examples[0].answer == "b"


def test_label_outside_the_list_is_named_with_its_row(folder: Path) -> None:
    task = make(folder, metric="label", labels=("positive", "mixed"))
    with pytest.raises(SuiteError, match=r"test\.jsonl, line 2 is labelled 'negative', .*'mixed'"):
        _ = task.test_examples


def test_template_naming_an_unknown_column_says_which_columns_there_are(folder: Path) -> None:
    with pytest.raises(SuiteError, match=r"test\.jsonl, line 1 .*'text' is undefined.*'input', 'label'"):
        _ = make(folder, prompt="{{ text }}").test_examples


@pytest.mark.parametrize("prompt", ["{{ input + 1 }}", "{{ 1 / 0 }}", "{{ ''.__class__.mro() }}", "{{ '\\ud83d' }}"])
def test_template_that_fails_names_its_row(folder: Path, prompt: str) -> None:
    with pytest.raises(SuiteError, match=r"template failed on .*test\.jsonl, line 1"):
        _ = make(folder, prompt=prompt).test_examples


@pytest.mark.parametrize("metric", ["number", "json"])
def test_answer_that_no_output_can_match_is_refused(folder: Path, metric: str) -> None:
    task = make(folder, metric=metric)
    with pytest.raises(SuiteError, match=rf"line 1: no output .*'positive' by the metric \"{metric}\""):
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
def test_contradictory_settings_are_refused(folder: Path, changes: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        make(folder, **changes)


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    """A folder whose task "mood" has these rows to train and to test on."""
    (folder / "mood").mkdir()
    for split in ("train", "test"):
        (folder / "mood" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


CONTRADICTION = {"input": "I loved it", "target": "positive", "label": 1}


@pytest.mark.parametrize("source", [True, False])
def test_a_label_that_contradicts_its_target_is_refused(tmp_path: Path, source: bool) -> None:
    rows = {"input": "I left", "target": "0", "label": 0}, CONTRADICTION
    task = make(write(tmp_path, *rows), metric="label", labels=("0", "1"), source=source)
    for split in ("train", "test"):
        sentence = rf"{split}\.jsonl, line 2: the target 'positive' is wrong by the answer '1'"
        with pytest.raises(SuiteError, match=sentence):
            task.examples(split, 10)


@pytest.mark.parametrize(
    ("metric", "row"),
    [
        ("number", {"target": "1 + 1 = 3\n#### 3", "answer": "2"}),
        ("exact", {"target": "Paris", "answer": "London"}),
        ("text", {"target": "the cat sat", "answer": None}),
        ("json", {"target": '{"a": 1}', "answer": '{"a": 2}'}),
    ],
)
def test_a_target_that_its_own_answer_judges_wrong_is_refused(tmp_path: Path, metric: str, row: dict[str, Any]) -> None:
    task = make(write(tmp_path, {"input": "x", **row}), metric=metric, source=True)
    with pytest.raises(SuiteError, match=r"line 1: (the target|no output can match)"):
        _ = task.training_examples


def test_templates_may_say_how_label_and_target_agree(tmp_path: Path) -> None:
    rows = CONTRADICTION, {"input": "I left", "target": "negative", "label": 0}
    folder, words = write(tmp_path, *rows), ("negative", "positive")
    by_target = make(folder, answer="{{ target }}", labels=words, metric="label", source=True)
    assert [e.answer for e in by_target.training_examples] == ["positive", "negative"]
    by_label = make(folder, target="{{ label }}", labels=("0", "1"), metric="label", source=True)
    assert [e.target for e in by_label.training_examples] == ["1", "0"]


def test_a_task_that_is_only_measured_may_ask_for_something_else(folder: Path) -> None:
    ask = {"answer": "{{ {'positive': 'yes'}.get(label, 'no') }}", "labels": ("no", "yes")}
    assert [e.answer for e in make(folder, metric="label", **ask).test_examples] == ["yes", "no"]
    with pytest.raises(SuiteError, match="trained on one and judged by the other"):
        _ = make(folder, metric="label", source=True, **ask).training_examples


def test_labels_are_matched_in_composed_form(tmp_path: Path) -> None:
    typed, composed = "cafe\u0301", "caf\u00e9"
    rows = [{"input": "x", "target": t, "label": t} for t in (typed, composed, "bar")]
    task = make(write(tmp_path, *rows), metric="label", labels=(typed, "bar"))
    assert [e.answer for e in task.test_examples] == [composed, composed, "bar"]
    assert task.labels == (composed, "bar")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("yes", "Yes"), "'yes' and 'Yes' are one to the judge"),
        (("yes", "yes.", "no"), "are one to the judge"),
        (("1", "１"), "are one to the judge"),
        (("caf\u00e9", "cafe\u0301", "bar"), "are one to the judge"),
        (("yes", ""), "the label '' has nothing that an answer could name"),
        (("...", "no"), "has nothing that an answer could name"),
    ],
)
def test_labels_that_the_judge_cannot_tell_apart_are_refused(
    folder: Path, labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make(folder, metric="label", labels=labels)


def test_digest_follows_what_a_measurement_depends_on_and_nothing_else(folder: Path) -> None:
    digest = make(folder).digest
    assert digest == make(folder, train=1, source=True).digest
    others = [make(folder, metric="text"), make(folder, max_tokens=5), make(folder, test=1)]
    assert digest not in {other.digest for other in others}


def test_a_source_of_one_class_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="there is one class only, 'yes'"):
        Task(name="t", rows=FolderSource(folder=folder), labels=("yes",), metric=Label())


def test_training_rows_of_one_class_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    row = '{"input": "a", "target": "yes", "label": "yes"}\n'
    (tmp_path / "t" / "train.jsonl").write_text(row * 3)
    task = Task(name="t", rows=FolderSource(folder=tmp_path), labels=("no", "yes"), metric=Label())
    with pytest.raises(SuiteError, match="all 3 training rows are of one class, 'yes'"):
        _ = task.training_examples


def test_a_label_that_the_target_template_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    rows = [{"input": "a", "target": "", "label": label} for label in ("good", "bad")]
    (tmp_path / "t" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = Task(
        name="t",
        rows=FolderSource(folder=tmp_path),
        target="{{ {'good': 'good'}[label] }}",
        labels=("good", "bad"),
        metric=Label(),
    )
    with pytest.raises(SuiteError, match=r"target template .*line 2 lacks: .*no attribute 'bad'"):
        _ = task.training_examples


def test_digests_of_tasks_measured_before_metrics_had_settings_are_the_same() -> None:
    digests = {task.name: task.digest[:12] for task in load_suite("mini").tasks}
    assert digests["word_problems"] == "1fccbb105c19"
    assert digests["sentiment2"] == "aa72b1955b84"


@pytest.mark.parametrize("given", ["text", {"name": "text"}])
def test_a_metric_without_settings_is_kept_as_its_name(folder: Path, given: Any) -> None:
    assert make(folder, metric=given).model_dump()["metric"] == "text"


def test_an_unknown_metric_is_refused_with_those_there_are(folder: Path) -> None:
    with pytest.raises(ValidationError, match=r"no metric 'tacit'; did you mean 'exact'\? Known: agreement, bleu, "):
        make(folder, metric="tacit")
