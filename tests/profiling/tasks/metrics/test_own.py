"""Metrics that users write: what is called, with what, and what is said where they fail."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from traitroute.adapters import MetricError, SuiteError
from traitroute.profiling import Example, Task
from traitroute.profiling.tasks.metrics import read_metric
from traitroute.profiling.tasks.sources import FolderSource
from traitroute.profiling.tasks.task import data_warnings

from .conftest import Judge, a_task

EXAMPLES = Path(__file__).parents[4] / "examples"
SOURCE = """
import math
from traitroute.profiling import Judgement

def length(output, example, most=10): return min(1.0, len(output) / most)
def truth(output, example): return output == example.answer
def whole(output, example): return Judgement(strict=False, lenient=True, parse_failure=False, metric_score=0.7)
def two(output, example): return 2
def nan(output, example): return math.nan
def none(output, example): return None
def raises(output, example): raise KeyError("tone")
def imports(output, example): import no_such_library
def column(output, example): return float(output in example.columns["good"])
constant = 3
class Counter:
    made = 0
    def __init__(self, most): Counter.made += 1; self.most = most
    def __call__(self, output, example): return len(output) / self.most
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of metrics, new for every test."""
    name = f"metrics_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def installed(tmp_path: Path, module: str) -> str:
    """The name of a metric that a package installs."""
    info = tmp_path / "acme_metrics-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-metrics\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[traitroute.metrics]\nlength_of_acme = {module}:length\n")
    return "length_of_acme"


def named(module: str, function: str, **settings: Any) -> dict[str, Any]:
    return {"name": "python", "function": f"{module}:{function}", **settings}


def test_a_function_gives_the_score(judge: Judge, module: str) -> None:
    judged = judge(named(module, "length"), "abcde")
    assert (judged.score, judged.strict, judged.lenient) == (0.5, False, True)
    assert judge(named(module, "length", settings={"most": 5}), "abcde").strict
    assert judge(named(module, "truth"), "x", "x").score == 1
    assert judge(named(module, "whole"), "x").score == 0.7


def test_a_short_form_names_the_function(judge: Judge, module: str) -> None:
    assert judge({"python": f"{module}:length", "settings": {"most": 5}}, "abcde").strict


def test_columns_that_the_suite_names_are_handed_over(judge: Judge, module: str) -> None:
    assert judge(named(module, "column", columns=["good"]), "a", good=["a"]).strict


def test_a_class_is_made_once(module: str) -> None:
    task = a_task(named(module, "Counter", settings={"most": 4}))
    examples = [Example(prompt="?", target="", answer="")] * 3
    assert [j.score for j in task.judge(["a", "ab", "abcd"], examples)] == [0.25, 0.5, 1]
    assert sys.modules[module].Counter.made == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("two", r"it gave 2\.0, and a score is from 0 to 1 \(example: 'Why\?'\)"),
        ("nan", r"it gave nan, and a score is from 0 to 1 \(example: 'Why\?'\)"),
        ("none", r"it gave 'None' \(NoneType\), and no number \(example: 'Why\?'\)"),
        ("raises", r"it raised KeyError: 'tone' \(example: 'Why\?'\)"),
        ("imports", r"it raised ModuleNotFoundError: No module named 'no_such_library'"),
        ("nothing", r"nothing cannot be imported \(AttributeError: .*put its folder on PYTHONPATH"),
        ("constant", "is int and cannot be called"),
        ("Counter", "it cannot be made with the settings {}"),
    ],
)
def test_what_fails_names_task_metric_and_example(judge: Judge, module: str, function: str, message: str) -> None:
    with pytest.raises(MetricError, match=rf'task t, metric "python": .*{message}'):
        judge(named(module, function), "x", prompt="Why?")


def test_a_module_that_is_not_there_is_named(judge: Judge) -> None:
    with pytest.raises(MetricError, match="no_such_module:f cannot be imported"):
        judge(named("no_such_module", "f"), "x")


@pytest.mark.parametrize("function", ["os.system", "os:system('x')", ":x", "a b:c", "../x:y"])
def test_what_is_no_place_of_a_function_is_refused_as_the_suite_is_read(function: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        a_task({"name": "python", "function": function})


def test_reading_a_suite_imports_nothing(module: str, installed: str) -> None:
    for metric in (named(module, "length"), installed):
        a_task(a_task(metric).model_dump(mode="json")["metric"])
    assert module not in sys.modules


def test_an_installed_metric_goes_by_its_name(judge: Judge, installed: str) -> None:
    assert judge(installed, "abcde").score == 0.5
    metric = {"name": installed, "most": 5}
    assert judge(metric, "abcde").score == 1
    assert a_task(metric).model_dump(mode="json")["metric"] == metric
    with pytest.raises(ValidationError, match=r"no metric 'length_of_acm'; did you mean 'length_of_acme'"):
        a_task("length_of_acm")


def test_the_source_of_a_metric_is_part_of_the_digest(tmp_path: Path, module: str) -> None:
    before = read_metric(named(module, "length")).rules
    assert before == read_metric(named(module, "length")).rules
    assert before != read_metric(named(module, "length", settings={"most": 5})).rules
    (tmp_path / f"{module}.py").write_text(SOURCE + "\n# changed\n")
    assert before != read_metric(named(module, "length")).rules


@pytest.fixture
def replies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    """A task judged by the metric of the examples."""
    (tmp_path / "replies").mkdir()
    (tmp_path / "replies" / "test.jsonl").write_text('{"input": "Hello?", "target": "Hi!", "most_words": 3}\n')
    monkeypatch.syspath_prepend(EXAMPLES)

    def make(**metric: Any) -> Task:
        metric = {"name": "python", "function": "own_metric:brief_and_polite", "columns": ["most_words"]} | metric
        return Task.model_validate({"name": "replies", "rows": FolderSource(folder=tmp_path), "metric": metric})

    return make


def test_the_example_scores_a_task(replies: Callable[..., Task]) -> None:
    task = replies(settings={"rude": ["stupid"]})
    outputs = ["Hi there!", "Stupid question, isn't it, my friend?", "Hello, my dear friend!", ""]
    assert [j.score for j in task.judge(outputs, task.test_examples * 4)] == [1, 0, 0.5, 0]
    assert task.digest != replies().digest


def test_a_metric_that_fails_is_told_before_anything_is_trained(replies: Callable[..., Task]) -> None:
    with pytest.raises(MetricError, match=r'task replies, metric "python": it raised TypeError.*polite'):
        data_warnings([replies(settings={"polite": True})])


def test_a_column_that_rows_lack_is_named(replies: Callable[..., Task]) -> None:
    with pytest.raises(SuiteError, match=r"reads the column 'tone' of .*line 1: its columns are \['input'"):
        _ = replies(columns=["tone"]).test_examples
