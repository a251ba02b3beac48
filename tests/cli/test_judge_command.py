"""`traitroute judge`: what it says of verdicts that were kept, and of labels."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from traitroute.profiling import load_suite
from traitroute.profiling.tasks.metrics.judge import Judge, Pair

Run = Callable[..., Any]


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of which a task was judged by a judge that leans towards what stands first."""
    monkeypatch.setenv("TRAITROUTE_CACHE", str(tmp_path / "cache"))
    judge = {"name": "judge", "model": "leaning", "url": "http://127.0.0.1:9/v1", "patience_s": 0.1}
    rows = {"built_in": "mini", "dataset": "sentiment2"}
    tasks: list[dict[str, Any]] = [{"name": f"t{i}", "rows": rows, "source": i < 2} for i in range(3)]
    tasks[2]["metric"] = judge
    file = tmp_path / "suite.yaml"
    file.write_text(json.dumps({"name": "judged", "tasks": tasks}))
    metric = load_suite(file).tasks[2].metric
    assert isinstance(metric, Judge)
    metric.file.parent.mkdir(parents=True)
    pairs = [Pair(str(i), "t2", "win", "loss", (10, 20), (200, 6)) for i in range(20)]
    metric.file.write_text("".join(json.dumps(asdict(pair)) + "\n" for pair in pairs))
    return file


def test_it_says_what_the_judge_cost_and_what_it_leans_to(run: Run, suite: Path) -> None:
    done = run("judge", suite, "t2")
    assert done.returncode == 0, done.stderr
    assert "leaning: 20 pairs in both orders, 4000 tokens read and 120 written" in done.stdout
    assert "the order decides 20, " in done.stdout
    assert "warning: it leans towards the answer shown first: what is shown first wins 100% of 40" in done.stdout


def test_what_cannot_be_reported_is_told(refusal: Run, suite: Path, tmp_path: Path) -> None:
    assert "has no task 't9'. Known: t0, t1, t2" in refusal("judge", suite, "t9")
    assert 'task t1 is judged by "exact"' in refusal("judge", suite, "t1")
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"prompt": "?", "output": "a", "base_output": "b", "label": "win"}')
    assert "the judge 'leaning' does not answer" in refusal("judge", suite, "t2", "--labels", labels)
