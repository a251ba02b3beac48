"""The harness's own metric, for rows that come from it."""

import json
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import MetricError
from traitroute.profiling import Task
from traitroute.profiling.tasks.sources import HarnessSource

from ..test_lm_eval import CAPITALS, CHOICE, harness_task
from .conftest import Judge

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")

ROWS = [{"q": "2 + 2", "a": "4"}, {"q": "1 + 1", "a": "2"}]
NUMBER = {"name": "last", "filter": [{"function": "regex", "regex_pattern": r"(\d+)$"}, {"function": "take_first"}]}
WHOLE = {"name": "whole", "filter": [{"function": "take_first"}]}


def task_of(source: HarnessSource, metric: Any = "lm_eval") -> Task:
    return Task.model_validate({"name": "sums", "rows": source, "metric": metric})


def generating(folder: Path, **config: Any) -> HarnessSource:
    return harness_task(folder, ROWS, doc_to_text="{{q}} =", doc_to_target="a", **config)


def test_outputs_are_scored_as_the_harness_does(tmp_path: Path) -> None:
    task = task_of(generating(tmp_path, filter_list=[NUMBER, WHOLE]))
    judged = task.judge(["so it is 4", "3"], task.test_examples)
    assert [j.score for j in judged] == [1, 0]
    assert [j.strict for j in judged] == [True, False]


def test_filter_and_metric_may_be_named(tmp_path: Path) -> None:
    source = generating(tmp_path, filter_list=[NUMBER, WHOLE])
    task = task_of(source, {"name": "lm_eval", "filter": "whole", "metric": "exact_match"})
    assert [j.score for j in task.judge(["so it is 4", "2"], task.test_examples)] == [0, 1]
    assert task.digest != task_of(source).digest
    assert task_of(source).metric.rules[1].startswith("lm_eval 0.")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"name": "lm_eval", "filter": "last"}, r"no filter 'last': it has \['none'\]"),
        ({"name": "lm_eval", "metric": "acc"}, r"no metric 'acc': it has \['exact_match'\]"),
    ],
)
def test_what_the_harness_lacks_is_named(tmp_path: Path, metric: Any, message: str) -> None:
    task = task_of(generating(tmp_path), metric)
    with pytest.raises(MetricError, match=rf'task sums, metric "lm_eval": .*{message}'):
        task.judge(["4", "2"], task.test_examples)


def test_a_metric_of_all_rows_together_is_refused(tmp_path: Path) -> None:
    task = task_of(generating(tmp_path, metric_list=[{"metric": "bleu"}]))
    with pytest.raises(MetricError, match="'bleu' is made of all rows together"):
        task.judge(["4", "2"], task.test_examples)


def test_a_metric_that_is_best_low_is_refused(tmp_path: Path) -> None:
    task = task_of(generating(tmp_path, metric_list=[{"metric": "ter"}]))
    with pytest.raises(MetricError, match="'ter' is best at its lowest"):
        task.judge(["4", "2"], task.test_examples)


def test_tasks_that_rank_likelihoods_are_refused(tmp_path: Path) -> None:
    source = harness_task(tmp_path, CAPITALS, **CHOICE)
    with pytest.raises(MetricError, match="ranks likelihoods"):
        task_of(source).judge(["A"], task_of(source).test_examples[:1])


def test_rows_from_elsewhere_are_refused(judge: Judge) -> None:
    with pytest.raises(MetricError, match=r"whose rows are \{lm_eval: NAME\}"):
        judge("lm_eval", "4", doc=json.loads("{}"))
