"""A task whose metric grades: adapters that are never strictly right are told apart, everywhere, by what it gives."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import Adapter, AdapterState, FinishReason, Registry
from traitroute.cli.matrix import Shown, matrix
from traitroute.profiling import measure
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.fit import fit, warn_of_pointless
from traitroute.profiling.matrix.matrix import TransferMatrix
from traitroute.profiling.matrix.profiled import Profiled
from traitroute.profiling.matrix.row import measure_row
from traitroute.profiling.report.gains import find_gains, gain_section
from traitroute.profiling.study import Study
from traitroute.profiling.tasks.task import Task, routing_scores
from traitroute.profiling.versions import Drift, Reference, moved
from traitroute.router import Router
from traitroute.serving.engines import EngineRequest, EngineResult
from traitroute.serving.profile_snapshot import ProfileSnapshot
from traitroute.serving.skills.skills import Skills

BASE = BaseModelFolder(name="tiny", path=Path("tiny"), digest="b" * 64)
WORDS = {"tales": "tell a long tale of dragons in", "notes": "put briefly the minutes about"}
SKILLS = {
    None: {"tales": 0.3, "notes": 0.3},
    "1": {"tales": 0.8, "notes": 0.3},
    "2": {"tales": 0.3, "notes": 0.8},
    "3": {"tales": 0.2, "notes": 0.4},
    "4": {"tales": 0.7, "notes": 0.3},
}
"""What share of the reference's words weights write, on average; never all of them."""
NAMES = {"1": "tales", "2": "notes", "3": "other", "4": "late"}


@dataclass
class Writer:
    """Writes the first words of the reference; counts what it is asked."""

    tasks: Sequence[Task]
    name: str = "writer"
    asked: list[str] = field(default_factory=list)

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        return [self._answer(request) for request in requests]

    def close(self) -> None:
        pass

    def _answer(self, request: EngineRequest) -> EngineResult:
        who, prompt = request.adapter and request.adapter.weights_digest[0], request.messages[-1]["content"]
        known = [(t.name, e.target) for t in self.tasks for e in t.test_examples if e.prompt == prompt]
        # The proof that an adapter is applied asks other things.
        name, target = known[0] if known else ("tales", f"{who} says this and that")
        self.asked += [prompt] if known else []
        luck = hashlib.sha256(f"{who} {prompt}".encode()).digest()[0] / 256 - 0.5
        words = target.split()
        count = int(np.clip(round(len(words) * (SKILLS[who][name] + 0.2 * luck)), 1, len(words) - 1))
        return EngineResult(
            text=" ".join(words[:count]),
            output_tokens=count,
            finish_reason=FinishReason.STOP,
            log_likelihoods=tuple(-1.0 - int(who or 0) / 10 for _ in request.candidates),
            candidate_tokens=tuple(1 for _ in request.candidates),
        )


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    folder = tmp_path_factory.mktemp("rows")
    for name, words in WORDS.items():
        (folder / name).mkdir()
        for split in ("train", "test"):
            rows = [
                {"input": f"{words} {split}{i}", "target": " ".join(f"{name}{i}w{j}" for j in range(30))}
                for i in range(40)
            ]
            (folder / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"rows": {"folder": str(folder)}, "metric": "f1", "test": 40, "train": 8, "source": True}
    return [Task.model_validate({"name": name, **given}) for name in WORDS]


def adapter(weights: str) -> Adapter:
    return Adapter(
        name=NAMES[weights],
        base_model="tiny",
        base_digest=BASE.digest,
        weights_digest=weights * 64,
        rank=2,
        target_modules=("q_proj",),
    )


def profile(registry: Registry, tasks: Sequence[Task]) -> Writer:
    """Measure, fit and record, as `profile` does; return the engine that was asked."""
    engine, known = Writer(tasks), [adapter(w) for w in "123"]
    for task in tasks:
        registry.put_task(task.name, task.digest, task.model_dump(mode="json"))
    cells = measure(engine, registry, BASE, known, tasks)
    fitted = fit(TransferMatrix.from_cells(cells, score=routing_scores(tasks)), tasks, [None] * 3)
    about: dict[str, Any] = {"suite": "tiny", "base_model": "tiny", "cells": tuple(c.key for c in cells)}
    summary = fitted.summary(None, **about, weights={a.name: a.weights_digest for a in known})
    registry.put_profile(fitted.routing.to_bytes(), summary, ready=fitted.matrix.adapters)
    return engine


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, tasks: list[Task]) -> Registry:
    """Version 1 routes by the strict score, version 2 by the metric's, of the same cells."""
    made = Registry.create(tmp_path_factory.mktemp("graded") / "registry.db")
    for weights in "1234":
        made.add_adapter(adapter(weights))
    profile(made, [task.model_copy(update={"score": "strict"}) for task in tasks])
    assert profile(made, tasks).asked == []
    return made


def test_another_score_measures_nothing_again_and_changes_what_is_routed(registry: Registry, tasks: list[Task]) -> None:
    cells = registry.cells()
    assert not any(cell.outcomes.strict.any() for cell in cells)
    strict, graded = registry.profile(1), registry.profile(2)
    assert not strict.summary.gains.any()
    assert graded.summary.scored_by == {"tales": "metric", "notes": "metric"}
    assert graded.summary.gains[0, 0] == pytest.approx(2 * 0.8 / 1.8 - 2 * 0.3 / 1.3, abs=0.05)
    changes = moved(registry, strict, graded, Reference.of_tasks(Profiled.open(registry)))
    assert len(changes) >= 76
    assert all((change.before, change.after) == (None, change.kind) for change in changes)


def test_a_task_on_which_nobody_has_a_point_is_warned_of(registry: Registry, tasks: list[Task]) -> None:
    strict = [task.model_copy(update={"score": "strict"}) for task in tasks]
    cells = registry.cells()
    warned = warn_of_pointless(TransferMatrix.from_cells(cells, score=routing_scores(strict)), strict)
    assert [text.partition(",")[0] for text in warned] == [
        f"{name}: neither base nor any adapter has a point (metric f1" for name in WORDS
    ]
    assert warn_of_pointless(TransferMatrix.from_cells(cells, score=routing_scores(tasks)), tasks) == []


def test_a_new_request_goes_to_the_adapter_of_the_higher_score(registry: Registry) -> None:
    router = Router.from_registry(registry)
    assert router.route("tell a long tale of dragons in spring").adapter == "tales"
    assert router.route("put briefly the minutes about rain").adapter == "notes"


def test_the_report_tests_the_score_that_routes_beside_the_strict_one(registry: Registry) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'traitroute[report]'")
    found = find_gains(Study.open(registry, 2), n_resamples=500)
    assert list(found.tests) == ["routing", "strict", "lenient", "likelihood"]
    assert found.tests["routing"].verdict[:2].tolist() == [["gain", "not shown"], ["not shown", "gain"]]
    assert not found.tests["strict"].called.any()
    shown = gain_section(found)
    assert "the score that routes" in shown.pictures[0].title
    assert shown.tables[0].rows[0]["gain"] == pytest.approx(found.tests["routing"].gain[0, 0])


def test_pages_and_cards_show_the_mean_score_and_a_fitting_interval(registry: Registry) -> None:
    snapshot = ProfileSnapshot.read(registry, Router.from_registry(registry))
    assert snapshot is not None
    matrix = Skills(snapshot).matrix()
    assert matrix.scored_by == ("metric", "metric")
    gain, low, high = matrix.gains[0][0], matrix.low[0][0], matrix.high[0][0]
    assert low is not None
    assert high is not None
    assert 0.3 < low < gain < high < 0.55
    card = Skills(snapshot).card("tales")
    assert card.gains[0].scored_by == "metric"
    assert card.gains[0].gain == pytest.approx(gain)


def test_the_matrix_command_prints_the_score_that_routes(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix(registry.location)
    matrix(registry.location, [Shown.STRICT])
    routes, strict = capsys.readouterr().out.split("% strictly correct")
    base = registry.profile(2).summary.base
    assert f"│ {100 * base[0]:.0f} │" in " ".join(routes.split())
    assert "│ base │ 0 │ 0 │" in " ".join(strict.split())


def test_a_new_row_is_estimated_from_few_examples_by_the_same_score(registry: Registry, tasks: list[Task]) -> None:
    base = registry.profile(2).summary.base
    engine = Writer(tasks)
    row = measure_row(registry.adapter("late"), engine, registry, BASE, share=0.5, tolerance=0.02).row
    true = np.mean([task.scores(o).mean() for task, o in _whole(registry, tasks)[:1]]) - base[0]
    assert row.gains[0] == pytest.approx(true, abs=0.06)
    # Right or wrong answers of that mean would need hundreds of examples for such an error.
    assert 0 < row.errors.mean() <= 0.03
    assert len(engine.asked) < 40
    assert registry.adapter("late").state is AdapterState.READY
    assert Router.from_registry(registry).profile.adapters[-1] == "late"
    assert np.isfinite(Drift.of(Profiled.open(registry)).band)


def _whole(registry: Registry, tasks: Sequence[Task]) -> list[Any]:
    from traitroute.profiling.matrix.measure import measure_cell

    return [(task, measure_cell(Writer(tasks), adapter("4"), task)) for task in tasks]


def test_a_score_that_no_task_has_is_refused() -> None:
    with pytest.raises(ValueError, match="'strict', 'lenient' or 'metric'"):
        Task.model_validate({"name": "t", "rows": {"built_in": "mini"}, "score": "loose"})
