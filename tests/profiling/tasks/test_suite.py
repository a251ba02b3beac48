"""Suites from YAML and from folders."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import SuiteError
from traitroute.profiling.tasks.sources import FolderSource
from traitroute.profiling.tasks.suite import (
    LEAST_TEST,
    GivenAdapter,
    Suite,
    folder_suite,
    load_suite,
    target_suite,
    target_tasks,
)

GOOD = """
name: tiny
tasks:
  - {name: a, rows: {built_in: mini, dataset: sentiment2}, labels: [negative, positive], metric: label, source: true}
  - {name: b, rows: {built_in: mini, dataset: word_problems}, metric: number, source: true}
  - {name: c, rows: {built_in: mini, dataset: structured}, metric: json}
"""


def load(folder: Path, text: str) -> Suite:
    file = folder / "suite.yaml"
    file.write_text(text, encoding="utf-8")
    return load_suite(file)


def write_task(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / name).mkdir()
    for split in ("train", "test"):
        lines = "\n".join(map(json.dumps, rows))
        (folder / name / f"{split}.jsonl").write_text(lines, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_task(tmp_path, "mood", [{"input": "x", "target": t, "label": t} for t in ("up", "down")])
    write_task(tmp_path, "sums", [{"input": "1 + 1", "target": "1 + 1 = 2\n#### 2"}])
    write_task(tmp_path, "slots", [{"input": "x", "target": '{"a": 1}'}])
    write_task(tmp_path, "trivia", [{"input": "x", "target": "Paris", "answer": "Paris"}])
    return tmp_path


def test_built_in_suite_loads_and_every_row_renders() -> None:
    suite = load_suite("mini")
    assert len(suite.tasks) == 8
    assert [t.name for t in suite.tasks if len(t.test_examples) != t.test] == []
    assert [t.name for t in suite.sources if len(t.training_examples) != t.train] == []


def test_suite_is_read_from_a_file(tmp_path: Path) -> None:
    assert [t.name for t in load(tmp_path, GOOD).sources] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD.replace("name: b,", "name: a,"), ["task and ablation names must differ", "['a']"]),
        (GOOD.replace("name: c,", "name: c, trian: 5,"), ["tasks.2.trian", "not permitted"]),
        (GOOD.replace("name: tiny", "name: tiny\nengin: vllm"), ["engin: Extra"]),
        (GOOD.replace("labels: [negative, positive], ", ""), ["tasks.0", "needs the list of labels"]),
        (GOOD.replace(", metric: number, source: true", ""), ["at least two tasks", "source: true"]),
        (GOOD.replace("[negative, positive]", "[no, yes]"), ["tasks.0.labels.0", "valid string"]),
        (GOOD + "  - [", ["suite.yaml is not YAML"]),
        ("name: tiny", ["tasks: Field required"]),
        ("", ["suite.yaml: suite: "]),
    ],
    ids=["twice", "key", "top-key", "labels", "one-source", "booleans", "syntax", "no-tasks", "empty"],
)
def test_a_bad_suite_is_refused_with_the_key_that_is_wrong(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(SuiteError) as error:
        load(tmp_path, text)
    assert [part for part in parts if part not in str(error.value)] == []


def test_no_adapter_of_a_suite_is_called_like_its_base_model(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="'a' is the name of the base model"):
        load(tmp_path, f"base_model: acme/A\n{GOOD}")


def test_unknown_built_in_suite_lists_those_there_are() -> None:
    with pytest.raises(SuiteError, match=r"no built-in suite 'maxi'; built in: \['mini', "):
        load_suite("maxi")


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"gone\.yaml cannot be read: No such file"):
        load_suite(tmp_path / "gone.yaml")
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff")
    with pytest.raises(SuiteError, match=r"image\.yaml, line 1: not UTF-8 text"):
        load_suite(tmp_path / "image.yaml")


def test_folder_suite_infers_metric_labels_and_prompt(folder: Path) -> None:
    suite = folder_suite(folder, ["mood", "sums"], ["slots", "trivia"])
    assert [t.metric.name for t in suite.tasks] == ["label", "number", "json", "text"]
    assert suite.tasks[0].labels == ("down", "up")
    assert suite.tasks[0].test_examples[0].prompt == "x\nAnswer with one of: down, up."
    assert [t.source for t in suite.tasks] == [True, True, False, False]


def test_answers_that_nobody_writes_to_the_letter_are_scored_by_words_in_common(folder: Path) -> None:
    sentence = "Kate does not like such films but agrees to go with Aubray to the cinema tomorrow evening"
    write_task(folder, "talk", [{"input": "x", "target": t} for t in (sentence, sentence + " again", "No.")])
    write_task(folder, "short", [{"input": "x", "target": t} for t in (sentence, "a cat", "No.")])
    write_task(
        folder,
        "unspaced",
        [
            {"input": "x", "target": t}
            for t in ("凯特不喜欢这样的电影但同意明天晚上去电影院", "凯特同意明天晚上和奥布雷一起去电影院")
        ],
    )
    suite = folder_suite(folder, ["mood", "sums"], ["talk", "short", "unspaced"])
    assert [t.metric.name for t in suite.tasks[2:]] == ["f1", "text", "f1"]


def test_folder_suite_refuses_one_source(folder: Path) -> None:
    with pytest.raises(SuiteError, match="at least two tasks"):
        folder_suite(folder, ["mood"], ["sums", "slots"])


def test_folder_that_cannot_name_a_task_is_refused(folder: Path) -> None:
    (folder / "mood").rename(folder / "my mood")
    with pytest.raises(SuiteError, match="'my mood' cannot be a name"):
        folder_suite(folder, ["my mood", "sums"], ["slots"])


def test_folder_with_labels_on_some_rows_only_is_refused(folder: Path) -> None:
    write_task(folder, "half", [{"input": "x", "target": "y"}, {"input": "x", "target": "y", "label": "y"}])
    with pytest.raises(SuiteError, match='half: some rows lack "label"'):
        folder_suite(folder, ["mood", "half"], ["slots"])


def test_a_folder_whose_labels_contradict_its_targets_is_refused(folder: Path) -> None:
    rows = [{"input": "x", "target": t, "label": n} for n, t in enumerate(("down", "up"))]
    write_task(folder, "signs", rows)
    suite = folder_suite(folder, ["mood", "signs"], ["slots"])
    with pytest.raises(SuiteError, match=r"signs/train\.jsonl, line 1: the target 'down' is wrong"):
        suite.training_sets()


def test_a_folder_whose_splits_write_labels_unlike_is_refused(folder: Path) -> None:
    write_task(folder, "signs", [{"input": "x", "target": str(n), "label": n} for n in (0, 1)])
    test = '{"input": "x", "target": "1", "label": "1"}'
    (folder / "signs" / "test.jsonl").write_text(test)
    with pytest.raises(SuiteError, match=r"test\.jsonl, line 1: the label '1' is text, and 0 in"):
        folder_suite(folder, ["mood", "signs"], ["slots"])


def test_a_folder_whose_labels_are_one_to_the_judge_is_refused(folder: Path) -> None:
    write_task(folder, "signs", [{"input": "x", "target": t, "label": t} for t in ("Yes", "yes")])
    with pytest.raises(SuiteError, match=r"signs/train.jsonl, line 2: the label 'yes' is 'Yes' to the judge"):
        folder_suite(folder, ["mood", "signs"], ["slots"])


def test_a_suite_that_names_gigabytes_in_few_lines_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(SuiteError, match=r"and 9 more$"):
        load(tmp_path, "\n".join(lines))


def test_a_suite_is_altered_in_tasks_sizes_and_training() -> None:
    suite = load_suite("paper-local").altered(
        tasks=["gsm8k", "mnli", "svamp"], train=5, test=7, method="ia3", seed=3, base_model="tiny"
    )
    assert [(t.name, t.train, t.test) for t in suite.tasks] == [("gsm8k", 5, 7), ("mnli", 5, 7), ("svamp", 5, 7)]
    assert {a.of for a in suite.ablations} == {"gsm8k", "mnli"}
    assert (suite.training.method, suite.training.seed, suite.base_model) == ("ia3", 3, "tiny")


def test_of_the_ablations_all_are_kept_or_those_that_are_named() -> None:
    suite = load_suite("paper-local").altered(tasks=["gsm8k", "mnli", "svamp", "mnli_shuffled"])
    assert [a.name for a in suite.ablations] == ["mnli_shuffled"]
    with pytest.raises(SuiteError, match="has no task 'mnli_shufled'"):
        suite.altered(tasks=["gsm8k", "mnli", "svamp", "mnli_shufled"])


def altered_suite(**ablation: object) -> Suite:
    suite = load_suite("paper-local").model_dump()
    suite["ablations"] = [{"name": "x", "of": "mnli", "change": "retrained", "seed": 1} | ablation]
    return Suite.model_validate(suite)


def test_an_ablation_may_be_measured_on_more_than_the_sources() -> None:
    suite = altered_suite(measured_on=["svamp"])
    assert [t.name for t in suite.measured_on(suite.ablations[0])] == [*(t.name for t in suite.sources), "svamp"]
    assert suite.altered(tasks=["gsm8k", "mnli", "boolq"]).ablations[0].measured_on == ()
    with pytest.raises(ValueError, match="\"measured_on\" names \\['swamp'\\]"):
        altered_suite(measured_on=["swamp"])


def test_the_study_on_a_capable_base_has_what_the_paper_lacked() -> None:
    suite = load_suite(Path(__file__).parents[3] / "benchmarks" / "paper_qwen.yaml")
    assert (len(suite.sources), len(suite.tasks), {t.test for t in suite.tasks}) == (10, 24, {60})
    controlled = {(a.of, a.change) for a in suite.ablations if a.is_control}
    assert {(t.name, c) for t in suite.sources if t.labels for c in ("shuffled", "stop_only")} <= controlled


def test_to_train_again_takes_another_seed() -> None:
    with pytest.raises(ValueError, match="ablation x is trained with the suite's own seed"):
        altered_suite(seed=0)


def test_a_share_of_the_test_rows_leaves_enough_of_each() -> None:
    suite = load_suite("mini")
    assert [t.test for t in suite.altered(share=0.35).tasks] == [round(0.35 * t.test) for t in suite.tasks]
    assert {t.test for t in suite.altered(share=0.01).tasks} == {LEAST_TEST}
    assert {t.test for t in suite.altered(test=3, share=0.5).tasks} == {3}


def test_altering_keeps_at_least_three_tasks_and_two_sources() -> None:
    with pytest.raises(SuiteError, match="at least two tasks need"):
        load_suite("paper-local").altered(tasks=["gsm8k", "svamp", "boolq"])
    with pytest.raises(SuiteError, match="has no task 'gsm9k'"):
        load_suite("paper-local").altered(tasks=["gsm9k"])


def test_other_local_rows_replace_folders_and_nothing_else(tmp_path: Path) -> None:
    suite = load_suite("paper").over(tmp_path)
    moved = [t.name for t in suite.tasks if t.rows == FolderSource(folder=tmp_path)]
    assert moved == ["flipkart"]


def test_an_ablation_must_alter_a_source() -> None:
    suite = load_suite("paper-local").model_dump()
    suite["ablations"] = [{"name": "x", "of": "svamp", "change": "shuffled"}]
    with pytest.raises(ValueError, match="\"of\" names \\['svamp'\\]"):
        Suite.model_validate(suite)


ROWS = "".join(f'{{"input": "say {word}", "target": "{word}"}}\n' for word in ("yes", "no"))


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder of three tasks in three forms, and what is none."""
    (tmp_path / "greet").mkdir()
    (tmp_path / "greet" / "test.jsonl").write_text(ROWS)
    (tmp_path / "nod.jsonl").write_text(ROWS)
    (tmp_path / "wave.csv").write_text("input,target\nsay yes,yes\nsay no,no\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.md").write_text("")
    return tmp_path


def test_tasks_to_be_measured_are_found_as_folders_and_files(places: Path) -> None:
    found = target_tasks(str(places))
    assert [(t.name, t.source, len(t.test_examples)) for t in found] == [
        ("greet", False, 2),
        ("nod", False, 2),
        ("wave", False, 2),
    ]
    assert [t.name for place in ("greet", "wave.csv") for t in target_tasks(str(places / place))] == ["greet", "wave"]


def test_tasks_of_a_suite_are_measured_and_not_trained_on() -> None:
    assert len(target_tasks("mini", test=3)) == len(load_suite("mini").tasks)
    assert not any(t.source for t in target_tasks("mini"))
    assert {len(t.test_examples) for t in target_tasks("mini", test=3)} == {3}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("empty", "empty holds no task: give TASK/test.jsonl or TASK.jsonl in it"),
        ("notes.md", "notes.md is no file of rows: its name ends in none of .jsonl, .parquet, .csv"),
        ("nowhere.jsonl", "nowhere.jsonl cannot be read"),
        ("nowhere", "nowhere cannot be read"),
    ],
)
def test_a_place_without_tasks_is_refused(places: Path, place: str, said: str) -> None:
    with pytest.raises(SuiteError, match=re.escape(said)):
        target_tasks(str(places / place))


def test_a_suite_of_given_adapters_needs_no_source_and_two_tasks(places: Path) -> None:
    given = [GivenAdapter(name="nod", uri="acme/nod")]
    suite = target_suite([str(places)], given)
    assert (suite.sources, suite.training_sets()) == ((), [])
    (places / "suite.yaml").write_text(suite.to_yaml())
    assert load_suite(places / "suite.yaml") == suite
    with pytest.raises(SuiteError, match="at least 2 tasks are needed, to tell requests"):
        target_suite([str(places / "nod.jsonl")], given)
    with pytest.raises(SuiteError, match=r"share the names \['nod'\]"):
        target_suite([str(places)], given * 2)
    with pytest.raises(SuiteError, match="at least two tasks need"):
        suite.without_adapters(["nod"])
