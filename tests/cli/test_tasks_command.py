"""`traitroute tasks add`: what it reads a task from, what it shows, and what bad input is told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import AdapterState, Registry

Run = Callable[..., Any]


@pytest.fixture
def registry(profiled: Path, tmp_path: Path) -> Path:
    """A profile whose tasks can be rendered again, of a base model that is nowhere."""
    path = Path(shutil.copy(profiled, tmp_path / "registry.db"))
    with Registry.open(path) as store:
        stored = store.profile(1)
        for name in stored.summary.tasks:
            task = task_of(tmp_path / "known", name)
            store.put_task(name, task.digest, task.model_dump(mode="json"))
        summary = stored.summary.changed(base_model=str(tmp_path / "nowhere"))
        store.put_profile(stored.data, summary)
    return path


def task_of(folder: Path, name: str) -> Any:
    from traitroute.profiling.tasks.inference import infer_task

    write_rows(folder / name)
    return infer_task(folder, name, source=False, train=0, test=4)


def write_rows(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = [{"input": f"is {i} {folder.name}?", "label": "yes" if i % 2 else "no"} for i in range(4)]
    lines = "\n".join(json.dumps(row | {"target": row["label"]}) for row in rows)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(lines)


def test_a_folder_that_is_profiled_already_is_refused(refusal: Run, registry: Path, tmp_path: Path) -> None:
    line = refusal("tasks", "add", tmp_path / "known" / "coder", "--registry", registry)
    assert "task coder is in profile version 2 already" in line


def test_a_place_without_rows_is_refused(refusal: Run, registry: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = refusal("tasks", "add", tmp_path / "empty", "--registry", registry)
    assert "has neither test.jsonl nor test.parquet" in line


def test_an_unknown_task_of_a_suite_is_refused(refusal: Run, registry: Path) -> None:
    line = refusal("tasks", "add", "mini", "--tasks", "poems", "--registry", registry)
    assert "suite mini has no task 'poems'; it has" in line


def test_an_engine_that_is_none_is_refused(refusal: Run, registry: Path) -> None:
    line = refusal("tasks", "add", "mini", "--engine", "abacus", "--registry", registry)
    assert "--engine is auto, transformers or vllm, not 'abacus'" in line


def test_a_missing_base_model_is_told_before_anything_is_measured(run: Run, registry: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "odd")
    ended = run("tasks", "add", tmp_path / "odd", "--registry", registry)
    assert ended.returncode != 0
    assert "nowhere" in ended.stderr


def test_a_disabled_adapter_cannot_be_measured_on_a_server(refusal: Run, registry: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "odd")
    with Registry.open(registry) as store:
        store.set_state("cook", AdapterState.DISABLED)
    place = ("tasks", "add", tmp_path / "odd", "--server", "http://127.0.0.1:9")
    assert "no server answers as cook" in refusal(*place, "--registry", registry)
