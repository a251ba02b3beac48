"""How `metric:` of a task is read, and what a run keeps where a metric fails."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from traitroute.adapters import MetricError, Registry
from traitroute.profiling import load_suite, measure
from traitroute.profiling.tasks.metrics import METRICS

from ...conftest import BASE, SkilledEngine, task
from .conftest import a_task

DOCUMENT = Path(__file__).parents[4] / "docs" / "metrics.md"
OWN = "def twice(output, example): return 2\n"


def test_the_document_lists_every_metric_and_its_settings() -> None:
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    settings = {name: set(re.findall(r"`(\w+)`", cell)) - {"labels"} for name, cell in rows}
    fields = {name: {f.alias or n for n, f in m.model_fields.items()} - {"name"} for name, m in METRICS.items()}
    assert settings == fields


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "a metric is a name, or {name: NAME, and settings}"),
        ({"pattern": "x"}, "a metric is a name"),
        ({"name": "exact", "pattern": "x"}, "metric 'exact': pattern: Extra inputs are not permitted"),
        ({"name": "regex"}, "metric 'regex': pattern: Field required"),
        ({"name": "code", "seconds": 0}, "metric 'code': seconds: Input should be greater"),
        ("rouge", "no metric 'rouge'; did you mean 'rouge_l'"),
    ],
)
def test_what_is_no_metric_is_refused_with_the_reason(given: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        a_task(given)


def test_a_suite_takes_names_and_settings(tmp_path: Path) -> None:
    tasks = "".join(
        f"- {{name: t{i}, rows: {{built_in: mini}}, source: {i < 2}, metric: {metric}}}\n"
        for i, metric in enumerate(("exact", "{name: f1}", "{name: contains, references: aliases}"))
    )
    file = tmp_path / "suite.yaml"
    file.write_text(f"name: own\ntasks:\n{tasks}")
    suite = load_suite(file)
    assert [t.model_dump()["metric"] for t in suite.tasks][1:] == ["f1", {"name": "contains", "references": "aliases"}]


def test_a_metric_that_fails_loses_no_cell_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_metric.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = {"name": "python", "function": "failing_metric:twice"}
    tasks = [task("sums", "word_problems", metric="number"), task("words", "sentiment2", metric=own)]
    engine = SkilledEngine(tasks)
    with Registry.create(tmp_path / "registry.db") as registry:
        with pytest.raises(MetricError, match=r'task words, metric "python": it gave 2\.0'):
            measure(engine, registry, BASE, [], tasks)
        asked = len(engine.asked)
        mended = tasks[1].model_copy(update={"metric": a_task("text").metric})
        cells = measure(engine, registry, BASE, [], [tasks[0], mended])
    assert len(cells) == 2
    assert len(engine.asked) - asked == len(mended.test_examples)
