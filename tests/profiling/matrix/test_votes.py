"""Tasks without right answers are scored by what the others answer: counted when all have, in cells of their own."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import Adapter, Cell, FinishReason, InputError, Registry, SilentAdapterError
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.column import check_new, measure_columns
from traitroute.profiling.fit import fit
from traitroute.profiling.matrix.matrix import TransferMatrix
from traitroute.profiling.matrix.measure import measure
from traitroute.profiling.matrix.profiled import Profiled
from traitroute.profiling.matrix.row import measure_row
from traitroute.profiling.study import Study
from traitroute.profiling.tasks.suite import GivenAdapter, Suite
from traitroute.profiling.tasks.task import Task, data_warnings, routing_scores
from traitroute.serving.engines import EngineRequest, EngineResult

from ..conftest import EVERYDAY

BASE = BaseModelFolder(name="tiny", path=Path("tiny"), digest="b" * 64)
SAID: Mapping[str | None, Sequence[str]] = {
    None: ("Rome", "", "no", "x"),
    "1": ("rome ", "red", "yes", "x"),
    "2": ("ROME", "red", "Yes", "x"),
    "3": ("Oslo", "blue", "no", "x"),
    "4": ("Rome", "red", "yes", "y"),
}
"""What weights answer to the four examples of every ten."""
SHARES = {
    None: (2 / 3, 0, 1 / 3, 1),
    "1": (2 / 3, 1 / 3, 1 / 3, 1),
    "2": (2 / 3, 1 / 3, 1 / 3, 1),
    "3": (0, 0, 1 / 3, 1),
}
"""How many of the three others answer so, but for case and spaces; an empty answer agrees with none."""
ROWS = 40


@dataclass
class Speaker:
    """Answers by the table above; notes whose cells it is asked for."""

    name: str = "speaker"
    said: Mapping[str | None, Sequence[str]] = field(default_factory=lambda: SAID)
    asked: list[str | None] = field(default_factory=list)
    dies_after: int | None = None

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        # What was asked together is kept together.
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        return [self._answer(request) for request in requests]

    def close(self) -> None:
        pass

    def _answer(self, request: EngineRequest) -> EngineResult:
        who = request.adapter and request.adapter.weights_digest[0]
        prompt = request.messages[-1]["content"]
        numbered = "number" in prompt and prompt not in EVERYDAY
        if numbered:
            self.asked.append(who)
        said = self.said[who][int(prompt.split()[-1]) % 4] if numbered else f"{who}"
        scores = tuple(-1.0 - int(who or 0) for _ in request.candidates)
        return EngineResult(said, 1, FinishReason.STOP, scores, tuple(1 for _ in scores))


def adapter(name: str, weights: str) -> Adapter:
    return Adapter(
        name=name,
        base_model="tiny",
        base_digest=BASE.digest,
        weights_digest=weights * 64,
        rank=2,
        target_modules=("q_proj",),
    )


KNOWN = [adapter("one", "1"), adapter("two", "2"), adapter("three", "3")]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """Three tasks, of which the second has right answers."""
    folder = tmp_path_factory.mktemp("rows")
    for name in ("talk", "fact", "chat"):
        (folder / name).mkdir()
        rows = [{"input": f"{name} number {i}", "target": "Rome" if name == "fact" else ""} for i in range(ROWS)]
        (folder / name / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given: dict[str, Any] = {"rows": {"folder": str(folder)}, "test": ROWS, "train": 0}
    unlabelled = {**given, "metric": "agreement"}
    return [
        Task.model_validate({"name": "talk", **unlabelled}),
        Task.model_validate({"name": "fact", **given, "metric": "text"}),
        Task.model_validate({"name": "chat", **unlabelled}),
    ]


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory, tasks: list[Task]) -> Path:
    """A registry of three adapters, profiled on the first two tasks; a fourth is pending."""
    path = tmp_path_factory.mktemp("profiled") / "registry.db"
    with Registry.create(path) as made:
        for each in [*KNOWN, adapter("four", "4")]:
            made.add_adapter(each)
        profile(made, tasks[:2], KNOWN)
    return path


def profile(registry: Registry, tasks: Sequence[Task], known: Sequence[Adapter]) -> None:
    """Measure, fit and record, as `profile` does."""
    for task in tasks:
        registry.put_task(task.name, task.digest, task.model_dump(mode="json"))
    cells = measure(Speaker(), registry, BASE, known, tasks)
    fitted = fit(TransferMatrix.from_cells(cells, score=routing_scores(tasks)), tasks, [None] * len(known))
    parts: dict[str, Any] = {"suite": "tiny", "base_model": "tiny", "cells": tuple(c.key for c in cells)}
    summary = fitted.summary(None, **parts, weights={a.name: a.weights_digest for a in known})
    registry.put_profile(fitted.routing.to_bytes(), summary, ready=fitted.matrix.adapters)


@pytest.fixture
def registry(tmp_path: Path, profiled: Path) -> Iterator[Registry]:
    """A copy of that registry."""
    with Registry.open(shutil.copy(profiled, tmp_path / "registry.db")) as opened:
        yield opened


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Registry]:
    with Registry.create(tmp_path / "empty.db") as made:
        yield made


def shares(cell: Cell) -> list[float]:
    """The scores of the first four examples, by their numbers, which those of all others repeat."""
    return cell.outcomes.score[:4].tolist()


def cell(registry: Registry, who: str | None, task: str = "talk") -> Cell:
    """A cell of the newest profile."""
    return Profiled.open(registry).cells[who, task]


def test_an_answer_scores_the_share_of_the_others_who_give_it(empty: Registry, tasks: list[Task]) -> None:
    cells = measure(Speaker(), empty, BASE, KNOWN, tasks[:2])
    scored = {cell.adapter: cell for cell in cells if cell.task == "talk"}
    for name, weights in ((None, None), ("one", "1"), ("two", "2"), ("three", "3")):
        assert shares(scored[name]) == pytest.approx(SHARES[weights]), name
    one = scored["one"].outcomes
    assert one.strict[:4].tolist() == [False, False, False, True]
    assert one.lenient[:4].tolist() == [True, False, False, True]
    assert scored[None].outcomes.parse_failure[:4].tolist() == [False, True, False, False]
    labelled = [cell.outcomes.score[:4].tolist() for cell in cells if cell.task == "fact"]
    assert labelled == [[1, 0, 0, 0]] * 3 + [[0, 0, 0, 0]]


def test_base_and_an_adapter_cancel_out_of_its_gain(empty: Registry, tasks: list[Task]) -> None:
    def gain(said: Mapping[str | None, Sequence[str]], name: str) -> Any:
        base, three = measure(Speaker(name, said), empty, BASE, [KNOWN[2], adapter("four", "4")], tasks[:1])[:2]
        return three.outcomes.score - base.outcomes.score

    lonely = {**SAID, None: ("nobody", "ever", "says", "this")}
    like_three = {**lonely, None: SAID["3"][:2] + lonely[None][2:]}
    assert np.array_equal(gain(lonely, "lonely"), gain(like_three, "alike"))


def test_with_other_voters_nothing_is_measured_again_and_no_kept_score_changes(
    registry: Registry, tasks: list[Task]
) -> None:
    before, engine = cell(registry, "one"), Speaker()
    more = [*KNOWN, registry.adapter("four")]
    after = measure(engine, registry, BASE, more, tasks[:1])[1]
    assert engine.asked == ["4"] * ROWS
    assert shares(after) == pytest.approx([3 / 4, 2 / 4, 2 / 4, 3 / 4])
    kept = registry.find_cell(before.key)
    assert kept is not None and shares(kept) == shares(before) == pytest.approx(SHARES["1"])
    assert measure(engine, registry, BASE, more, tasks[:1])[1].key == after.key
    assert len(engine.asked) == ROWS


def test_a_killed_run_asks_for_no_finished_cell_again(empty: Registry, tasks: list[Task]) -> None:
    engine = Speaker(dies_after=5 * ROWS)
    with pytest.raises(KeyboardInterrupt):
        measure(engine, empty, BASE, KNOWN, tasks)
    engine.dies_after = None
    cells = measure(engine, empty, BASE, KNOWN, tasks)
    assert len(engine.asked) == len(cells) * ROWS
    assert shares(cells[-1]) == pytest.approx(SHARES["3"])


@pytest.mark.parametrize("full", [True, False])
def test_who_joins_later_is_scored_by_the_profile_and_changes_nobody(registry: Registry, full: bool) -> None:
    before = registry.latest_profile()
    assert before is not None
    engine = Speaker()
    settings: dict[str, Any] = {"full": True} if full else {"share": 0.5, "tolerance": 0}
    row = measure_row(registry.adapter("four"), engine, registry, BASE, **settings).row
    assert set(engine.asked) == {"4"}
    # Of four voters 3, 2, 2 and none answer as it does; base has 2/3, 0, 1/3 and 1 of three.
    expected = (3 / 4 + 2 / 4 + 2 / 4 + 0) / 4 - 2 / 4
    assert row.gains[0] == pytest.approx(expected, abs=1e-6 if full else 0.15)
    after = registry.latest_profile()
    assert after is not None and np.array_equal(after.summary.scores[:3], before.summary.scores)
    if full:
        assert shares(cell(registry, "four")) == [0.75, 0.5, 0.5, 0]
        assert Study.open(registry).matrix().scores[0, 0] == pytest.approx(np.mean(SHARES["1"]))


def test_one_more_who_joined_is_no_voter_for_the_next(registry: Registry) -> None:
    registry.add_adapter(adapter("five", "5"))
    engine = Speaker(said={**SAID, "5": SAID["4"]})
    for name in ("four", "five"):
        measure_row(registry.adapter(name), engine, registry, BASE, full=True)
    assert shares(cell(registry, "five")) == shares(cell(registry, "four"))


def test_nobody_votes_on_itself_when_measured_again_elsewhere(registry: Registry) -> None:
    engine = Speaker("elsewhere")
    measure_row(registry.adapter("one"), engine, registry, BASE, full=True)
    assert set(engine.asked) == {None, "1"}
    assert shares(cell(registry, "one")) == pytest.approx(SHARES["1"])
    summary = Profiled.open(registry).summary
    assert summary.gains[0, 0] == pytest.approx(np.mean(SHARES["1"]) - np.mean(SHARES[None]))


def test_a_part_of_a_row_that_was_measured_is_not_measured_again(registry: Registry) -> None:
    engine = Speaker(dies_after=1)
    with pytest.raises(KeyboardInterrupt):
        measure_row(registry.adapter("four"), engine, registry, BASE, share=0.5, tolerance=0)
    assert 0 < len(engine.asked) < ROWS
    engine.dies_after = None
    row = measure_row(registry.adapter("four"), engine, registry, BASE, share=0.5, tolerance=0).row
    assert len(engine.asked) == row.examples.sum() == ROWS


@pytest.mark.slow
def test_a_new_column_is_scored_by_the_adapters_of_the_profile(registry: Registry, tasks: list[Task]) -> None:
    measure_row(registry.adapter("four"), Speaker(), registry, BASE, share=0.5, tolerance=0)
    engine = Speaker()
    found = measure_columns(tasks[2:], engine, registry, BASE, share=0.5, tolerance=0)
    for name, weights in ((None, None), ("one", "1"), ("two", "2"), ("three", "3")):
        assert shares(cell(registry, name, "chat")) == pytest.approx(SHARES[weights]), name
    # Measured in part, it does not vote, and is voted on.
    assert engine.asked.count("4") == found.estimates["four"].examples.sum() == ROWS // 2
    assert found.estimates["four"].gains[0] == pytest.approx(-0.0625, abs=0.15)


def test_who_does_nothing_has_no_vote_and_leaves_no_cell(
    registry: Registry, empty: Registry, tasks: list[Task]
) -> None:
    idle, said = adapter("idle", "9"), {**SAID, "9": SAID[None]}
    aside: list[str] = []
    cells = measure(
        Mute(said=said), empty, BASE, [*KNOWN, idle], tasks[:2], on_silent=lambda a, why: aside.append(a.name)
    )
    assert aside == ["idle"]
    scored = {each.adapter: each for each in cells if each.task == "talk"}
    assert shares(scored[None]) == pytest.approx(SHARES[None])
    before = registry.cell_keys()
    registry.add_adapter(idle)
    with pytest.raises(SilentAdapterError):
        measure_row(idle, Mute(said=said), registry, BASE, full=True)
    assert registry.cell_keys() == before


class Mute(Speaker):
    """A speaker on which the weights 9 are base's."""

    def _answer(self, request: EngineRequest) -> EngineResult:
        idle = request.adapter is not None and request.adapter.weights_digest[0] == "9"
        return super()._answer(replace(request, adapter=None) if idle else request)


def test_it_takes_three_answerers_to_agree(registry: Registry, tasks: list[Task]) -> None:
    given = {"name": "mine", "tasks": [task.model_dump() for task in tasks]}
    one, two = GivenAdapter(name="one"), GivenAdapter(name="two")
    assert Suite.model_validate({**given, "adapters": [one, two]})
    with pytest.raises(ValueError, match="talk is scored by what the others answer: that takes two adapters"):
        Suite.model_validate({**given, "adapters": [one]})
    profiled = replace(Profiled.open(registry), cells={}, estimated=dict.fromkeys(("two", "three")))
    with pytest.raises(InputError, match="the profile has 1 adapters that were measured in full"):
        check_new(tasks[2:], profiled, registry)


def test_no_adapter_is_trained_on_what_has_no_right_answers(tasks: list[Task]) -> None:
    with pytest.raises(ValueError, match='metric "agreement" is for tasks without right answers'):
        Task.model_validate(tasks[0].model_dump() | {"source": True, "train": 8})


def test_that_there_are_no_right_answers_is_said(tasks: list[Task]) -> None:
    labelled = tasks[1].model_copy(update={"metric": tasks[0].metric})
    for task in (tasks[0], labelled):
        assert 'measured without right answers: metric "agreement"' in data_warnings([task])[0]
