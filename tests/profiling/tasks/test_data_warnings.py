"""Odd rows are reported with their numbers, and ordinary ones are not."""

import json
from pathlib import Path
from typing import Any

from traitroute.profiling import load_suite
from traitroute.profiling.tasks.task import Task, data_warnings


def task(folder: Path, train: list[tuple[str, str]], test: list[tuple[str, str]], **more: Any) -> Task:
    (folder / "t").mkdir()
    for split, rows in (("train", train), ("test", test)):
        made = [{"input": asked, "target": answer} for asked, answer in rows]
        (folder / "t" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, made)))
    return Task.model_validate({"name": "t", "rows": {"folder": str(folder)}, "source": True} | more)


def test_the_built_in_suite_has_nothing_odd() -> None:
    assert data_warnings(load_suite("mini").tasks) == []


def test_test_rows_that_training_rows_ask_too_are_counted(tmp_path: Path) -> None:
    train = [("Is it GOOD?", "yes"), ("cafe\u0301?", "yes"), ("Was it?", "no")]
    test = [("is it  good?\n", "yes"), ("caf\u00e9?", "yes"), ("New?", "no"), ("Newer?", "no")]
    [message] = data_warnings([task(tmp_path, train, test)])
    assert message.startswith("t: 2 of 4 test rows (50%) ask what a training row asks")


def test_a_test_split_of_one_class_is_reported(tmp_path: Path) -> None:
    rows = [("a", "yes"), ("b", "no")], [("c", "yes"), ("d", "yes"), ("e", "yes")]
    [message] = data_warnings([task(tmp_path, *rows, labels=["yes", "no"], metric="label")])
    assert message.startswith("t: all 3 test rows have one and the same answer, 'yes'")


def test_targets_that_are_never_strictly_right_are_reported(tmp_path: Path) -> None:
    rows = [("1 + 1", "It is 2"), ("1 + 2", "#### 3")], [("2 + 2", "4"), ("2 + 3", "5")]
    [message] = data_warnings([task(tmp_path, *rows, metric="number")])
    assert "1 of 2 training targets (50%) hold the answer" in message


def test_a_task_that_is_only_measured_need_not_have_training_rows(tmp_path: Path) -> None:
    measured = task(tmp_path, [], [("a", "yes"), ("b", "no")], source=False)
    assert data_warnings([measured]) == []
