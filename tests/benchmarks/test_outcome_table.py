"""The outcome table may be partial: it grows by what is measured, and what it holds is not measured again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from outcomes import Job, do
from routing.gather import write_table
from routing.measured import Measured
from routing.plan import Plan, Sizes, cell_file, read_folder_plan
from routing.table import SMOLLM2, load
from traitroute.adapters import InputError, Outcomes
from traitroute.router import packaged_encoder

from ..made_up_outcomes import made_up_outcomes

NAMES = ("mood", "spam", "topic")
ROWS = 6


def write_rows(folder: Path) -> Path:
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        for part in ("train", "test"):
            rows = [{"input": f"{part} {name} {i}", "target": "ab"[i % 2], "label": "ab"[i % 2]} for i in range(ROWS)]
            (folder / name / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three tasks and two adapters, on a base model that nothing can be measured with."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"no weights")
    found = read_folder_plan(write_rows(tmp_path / "data"), ["mood", "spam"], Sizes(train=ROWS, test=ROWS))
    return replace(found, base_model=str(base))


def outcomes(right: float, *, rows: int = ROWS) -> Outcomes:
    strict = np.arange(rows) < right * rows
    return made_up_outcomes(
        strict,
        lenient=True,
        score=strict / 2,
        log_likelihood=-3,
        target_tokens=2,
        output_tokens=5,
        predicted_label=1,
        label_probabilities=np.full((rows, 2), 0.5, np.float32),
    )


def measure(plan: Plan, work: Path, cells: dict[str, tuple[str, ...]], right: float = 0.5) -> None:
    """Leave the cells, of adapter or base by task, that a run would have left."""
    keys = Measured.read(plan, work, work / "none").keys
    for name, tasks in cells.items():
        if name != "base":
            (work / "runs" / name).mkdir(parents=True, exist_ok=True)
            (work / "runs" / name / "training.json").write_text(json.dumps({"key": keys[name]}))
        for asked in (a for a in plan.asked if a.name in tasks):
            file = cell_file(work, name, asked)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(outcomes(right).to_bytes())


def encode(texts: Sequence[str]) -> NDArray[np.float16]:
    return np.zeros((len(texts), 384), np.float16)


def test_with_base_alone_there_is_no_table_yet(plan: Plan, tmp_path: Path) -> None:
    measure(plan, tmp_path / "work", {"base": NAMES})
    with pytest.raises(InputError, match="only base is measured"):
        write_table(plan, tmp_path / "work", tmp_path / "table", encode)


def test_what_is_not_measured_is_nan_and_survives_being_written(plan: Plan, tmp_path: Path) -> None:
    measure(plan, tmp_path / "work", {"base": NAMES, "mood": NAMES, "spam": ("mood",)})
    write_table(plan, tmp_path / "work", tmp_path / "table", encode)
    table = load(tmp_path / "table")
    assert (table.adapters, table.homes) == (("mood", "spam"), (("mood",), ("spam",)))
    assert table.measured.mean(axis=0).tolist() == [1, 1, pytest.approx(1 / 3)]
    topic = table.dataset == "topic"
    assert np.isnan(table.metric[topic, 2]).all()
    assert table.metric[topic, 1].tolist() == [0.5, 0.5, 0.5, 0, 0, 0]
    assert table.likelihood[topic, 0].tolist() == [-1.5] * ROWS
    assert table.static.shape == (len(table), packaged_encoder().width)
    assert np.linalg.norm(table.source_static.astype(np.float32), axis=1) == pytest.approx(1, abs=1e-3)
    table.save(tmp_path / "again")
    again = load(tmp_path / "again")
    np.testing.assert_array_equal(again.strict, table.strict)
    np.testing.assert_array_equal(again.row, table.row)
    assert (again.trained, again.task_digests) == (table.trained, table.task_digests)


def test_the_complete_part_of_a_table_is_the_largest_there_is(plan: Plan, tmp_path: Path) -> None:
    measure(plan, tmp_path / "work", {"base": NAMES, "mood": NAMES, "spam": ("mood",)})
    write_table(plan, tmp_path / "work", tmp_path / "table", encode)
    complete = load(tmp_path / "table").complete()
    assert complete.adapters == ("mood",)
    assert (complete.tasks, complete.measured.all()) == (NAMES, True)
    assert set(complete.source_adapter.tolist()) == {0}
    measure(plan, tmp_path / "work", {"spam": ("mood", "topic")})
    write_table(plan, tmp_path / "work", tmp_path / "table", encode)
    complete = load(tmp_path / "table").complete()
    assert (complete.adapters, complete.tasks) == (("mood", "spam"), ("mood", "topic"))
    assert set(complete.dataset) == {"mood", "topic"}


def test_a_table_grows_by_cells_of_another_work_folder(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "table"
    measure(plan, tmp_path / "here", {"base": NAMES, "mood": NAMES})
    write_table(plan, tmp_path / "here", file, encode)
    measure(plan, tmp_path / "there", {"spam": ("topic",)}, right=1)
    write_table(plan, tmp_path / "there", file, encode)
    table = load(file)
    of_topic = table.strict[table.dataset == "topic"].mean(axis=0)
    assert of_topic.tolist() == [0.5, 0.5, 1]
    assert np.isnan(table.strict[table.dataset == "mood", 2]).all()


def test_what_the_table_holds_is_neither_measured_nor_trained_again(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "table"
    measure(plan, tmp_path / "here", {"base": NAMES, "mood": NAMES, "spam": ("mood",)})
    write_table(plan, tmp_path / "here", file, encode)
    known = Measured.read(plan, tmp_path / "there", file)
    waiting = {s and s.name: [a.name for a in known.waiting(s)] for s in (None, *plan.sources)}
    assert waiting == {None: [], "mood": [], "spam": ["spam", "topic"]}
    # The base model holds no weights: a job that did anything would fail.
    jobs = [Job(source, plan, tmp_path / "there", file) for source in (None, plan.sources[0])]
    assert [do(job) for job in jobs] == ["base", "mood"]
    assert not (tmp_path / "there").exists()


def test_a_cell_counts_only_for_the_same_training_and_the_same_questions(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "table"
    measure(plan, tmp_path / "work", {"base": NAMES, "mood": NAMES})
    write_table(plan, tmp_path / "work", file, encode)
    longer = replace(plan, training=plan.training.model_copy(update={"epochs": 9}))
    known = Measured.read(longer, tmp_path / "there", file)
    assert (len(known.waiting(None)), len(known.waiting(plan.sources[0]))) == (0, 3)
    first = plan.asked[0]
    other = replace(first, task=first.task.model_copy(update={"max_tokens": 3}))
    changed = replace(plan, asked=(other, *plan.asked[1:]))
    assert [a.name for a in Measured.read(changed, tmp_path / "there", file).waiting(None)] == ["mood"]


def test_nothing_is_mixed_of_an_adapter_that_was_trained_again_to_other_weights(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "table"

    def trained(work: str, weights: bytes, tasks: tuple[str, ...], right: float) -> Measured:
        measure(plan, tmp_path / work, {"base": NAMES, "mood": tasks}, right)
        (tmp_path / work / "runs" / "mood" / "adapter_model.safetensors").write_bytes(weights)
        return Measured.read(plan, tmp_path / work, file)

    trained("here", b"one", ("mood", "spam"), right=1)
    write_table(plan, tmp_path / "here", file, encode)
    alike, other = (trained(work, w, ("topic",), right=0) for work, w in (("same", b"one"), ("there", b"two")))
    mood = plan.sources[0]
    assert [a.name for a in alike.waiting(mood)] == []
    assert [a.name for a in other.waiting(mood)] == ["mood", "spam"]
    write_table(plan, tmp_path / "there", file, encode)
    table = load(file)
    assert table.weights == (other.weights["mood"],)
    assert np.isnan(table.strict[table.dataset != "topic", 1]).all()
    assert table.strict[table.dataset == "topic", 1].tolist() == [0] * ROWS


def test_a_work_folder_of_another_training_is_refused_before_anything_is_lost(plan: Plan, tmp_path: Path) -> None:
    measure(plan, tmp_path / "work", {"mood": ("mood",)})
    longer = replace(plan, training=plan.training.model_copy(update={"epochs": 9}))
    with pytest.raises(InputError, match="another folder with --work"):
        Measured.read(longer, tmp_path / "work", tmp_path / "none")


def test_a_table_of_another_plan_is_not_written_over(plan: Plan, tmp_path: Path) -> None:
    measure(plan, tmp_path / "work", {"base": NAMES})
    with pytest.raises(InputError, match="another file with --out"):
        write_table(plan, tmp_path / "work", SMOLLM2, encode)
    with pytest.raises(InputError, match="nothing of the plan is measured"):
        write_table(plan, tmp_path / "empty", tmp_path / "none", encode)


def test_a_job_trains_and_measures_what_is_missing(plan: Plan, tiny_chat: Path, tmp_path: Path) -> None:
    plan, work, file = replace(plan, base_model=str(tiny_chat)), tmp_path / "work", tmp_path / "table"
    for source in (None, plan.sources[0]):
        do(Job(source, plan, work, file))
    write_table(plan, work, file, encode)
    table = load(file)
    assert (table.adapters, bool(table.measured.all())) == (("mood",), True)
    assert not np.array_equal(table.likelihood[:, 0], table.likelihood[:, 1])
    cells = sorted((work / "cells" / "mood").iterdir())
    cells[0].unlink()
    log = (work / "seconds.jsonl").read_text().count("measured")
    do(Job(plan.sources[0], plan, work, tmp_path / "none"))
    assert (work / "seconds.jsonl").read_text().count("measured") == log + 1
    assert sorted((work / "cells" / "mood").iterdir()) == cells
