"""`traitroute report`: where it writes, what it says, and what it refuses."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Cell, Outcomes, Registry
from traitroute.profiling.tasks.task import Task

from ..made_up_outcomes import made_up_outcomes

pytest.importorskip("matplotlib")
pytest.importorskip("pyarrow")

Run = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]
NAMES = ("first", "second", "third")
ADAPTERS = NAMES[:2]


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Two adapters on three tasks whose rows are no longer there."""
    path = tmp_path / "team.db"
    cells = [
        Cell(f"{a}/{t}", a, t, outcomes(seed))
        for seed, (a, t) in enumerate((a, t) for a in (None, *ADAPTERS) for t in NAMES)
    ]
    with Registry.create(path) as registry:
        for name in NAMES:
            task = Task.model_validate({"name": name, "rows": {"folder": "gone"}, "source": name in ADAPTERS})
            registry.put_task(name, "0" * 64, task.model_dump(mode="json"))
        for cell in cells:
            registry.put_cell(cell)
        keys = [cell.key for cell in cells]
        summary = made_up_summary(ADAPTERS, NAMES, suite="tiny", base_model="small", cells=keys)
        registry.put_profile(b"", summary)
    return path


def outcomes(seed: int, n: int = 20) -> Outcomes:
    rng = np.random.default_rng(seed)
    right = rng.random(n) < 0.4
    return made_up_outcomes(
        right,
        log_likelihood=rng.normal(-3, 1, n),
        target_tokens=np.arange(1, n + 1),
        output_tokens=rng.integers(1, 30, n),
        predicted_label=-1,
    )


@pytest.mark.slow
def test_the_page_lies_beside_the_registry_and_gaps_are_named(run: Run, measured: Path) -> None:
    ended = run("report", "--registry", measured)
    page = measured.with_name("team-report") / "index.html"
    assert ended.returncode == 0, ended.stderr
    assert f"report: {page}" in ended.stdout
    assert "left out: Similarity of the data: gone has no task folder" in ended.stdout.replace("\n", " ")
    assert "tiny: what its adapters do" in page.read_text()
    assert (page.parent / "tables" / "cells.parquet").is_file()


def test_a_file_in_the_way_is_refused(run: Run, measured: Path, refusal: Refusal) -> None:
    assert "is a file; give a folder" in refusal("report", "--registry", measured, "--out", measured)


def test_an_unknown_version_is_refused(measured: Path, refusal: Refusal) -> None:
    assert "no profile version 7" in refusal("report", "--registry", measured, "--version", 7)
