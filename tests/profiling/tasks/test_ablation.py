"""What each ablation does to a source's rows."""

import json
from collections import Counter
from pathlib import Path

import pytest
from traitroute.adapters import SuiteError
from traitroute.profiling import Task
from traitroute.profiling.tasks.ablation import Ablation, Change
from traitroute.profiling.tasks.metrics.rules import Number
from traitroute.profiling.tasks.sources import BuiltInSource, FolderSource


def sentiment(**changes: object) -> Task:
    fields = {
        "name": "sentiment3",
        "rows": BuiltInSource(built_in="mini"),
        "labels": ("negative", "neutral", "positive"),
        "metric": "label",
        "source": True,
        "train": 60,
    }
    return Task.model_validate(fields | changes)


def problems() -> Task:
    rows = BuiltInSource(built_in="mini")
    return Task(name="word_problems", rows=rows, metric=Number(), source=True, train=40)


def altered(change: Change, source: Task, **settings: object) -> list:
    ablation = Ablation.model_validate({"name": "altered", "of": source.name, "change": change} | settings)
    return list(ablation.training_set(source).examples)


def test_every_label_of_a_mislabelled_source_is_wrong() -> None:
    rows = altered("mislabelled", sentiment())
    truth = [e.answer for e in sentiment().training_examples]
    assert [e.prompt for e in rows] == [e.prompt for e in sentiment().training_examples]
    assert not any(e.answer == true for e, true in zip(rows, truth, strict=True))
    assert all(e.target == e.answer for e in rows)


def test_shuffling_keeps_every_answer_and_leaves_none_in_its_place() -> None:
    rows, original = altered("shuffled", problems()), problems().training_examples
    assert Counter(e.target for e in rows) == Counter(e.target for e in original)
    moved = sum(a.target != b.target for a, b in zip(rows, original, strict=True))
    assert moved >= len(rows) - 1


def test_a_balanced_source_has_as_many_rows_of_every_class() -> None:
    assert set(Counter(e.answer for e in altered("balanced", sentiment())).values()) == {20}


def test_an_imbalanced_source_has_the_asked_share_of_one_class() -> None:
    rows = altered("imbalanced", sentiment(), label="neutral", share=0.7)
    assert len(rows) == 60
    assert Counter(e.answer for e in rows)["neutral"] == 42


def test_short_and_long_sources_differ_in_length_and_not_in_size() -> None:
    short, long = altered("short", problems()), altered("long", problems())
    assert len(short) == len(long) == 40
    assert max(len(e.target) for e in short) <= min(len(e.target) for e in long)


def test_stop_only_keeps_the_rows_and_learns_the_end_alone() -> None:
    made = Ablation(name="s", of="sentiment3", change="stop_only").training_set(sentiment())
    assert made.learn == "stop"
    assert list(made.examples) == sentiment().training_examples


def test_an_ablation_is_the_same_every_time() -> None:
    assert altered("imbalanced", sentiment()) == altered("imbalanced", sentiment())


def test_a_change_of_labels_needs_labels() -> None:
    with pytest.raises(SuiteError, match="word_problems has no labels; choose a source with"):
        altered("mislabelled", problems())


def test_an_unknown_class_is_named_with_those_there_are() -> None:
    with pytest.raises(SuiteError, match=r"no rows of class 'mixed'; \"label\" is one of"):
        altered("imbalanced", sentiment(), label="mixed")


def test_too_few_rows_of_a_class_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "sentiment3"
    folder.mkdir()
    labels = ["positive"] * 50 + ["negative"]
    rows = [{"input": str(i), "target": label, "label": label} for i, label in enumerate(labels)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = sentiment(rows=FolderSource(folder=tmp_path), labels=("negative", "positive"), train=40)
    with pytest.raises(SuiteError, match="20 rows of class 'negative' are wanted and 1 are there"):
        altered("balanced", source)


def test_a_source_that_is_trained_again_has_its_rows_and_a_seed_of_its_own() -> None:
    again = Ablation(name="again", of="sentiment3", change="retrained", seed=3).training_set(sentiment())
    assert (list(again.examples), again.seed) == (sentiment().training_examples, 3)
    assert sentiment().training_set.seed is None
