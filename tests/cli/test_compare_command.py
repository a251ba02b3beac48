"""`traitroute compare` over two registries with made-up gains."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Adapter, Cell, Registry
from traitroute.profiling.tasks.task import Task

from ..made_up_outcomes import made_up_outcomes

Run = Callable[..., CompletedProcess[str]]
ADAPTERS = [f"adapter{i}" for i in range(9)]
TASKS = [f"task{j}" for j in range(5)]
SETS = ("toxicity", "sentiment2", "paraphrase", "entailment", "sentiment3")
ROWS = 12


def task(name: str, *, measured: bool) -> Task:
    rows = {"built_in": "mini", "dataset": SETS[TASKS.index(name)]} if measured else {"folder": "gone"}
    return Task.model_validate({"name": name, "rows": rows, "test": ROWS})


def cell(adapter: str | None, name: str, score: float, seed: int) -> Cell:
    right = np.random.default_rng([seed, TASKS.index(name)]).random(ROWS) < score
    outcomes = made_up_outcomes(
        right, parse_failure=~right, log_likelihood=-1.0 * right, finish_reason=1, predicted_label=-1, output_digest=1
    )
    return Cell(f"{adapter}/{name}", adapter, name, outcomes)


def registry(path: Path, *, seed: int, base: str = "tiny", adapters: int = 9, measured: bool = False) -> Path:
    """A registry of made-up scores; where `measured`, with cells that have about these, and test rows."""
    scores = np.random.default_rng(seed).uniform(size=(adapters, len(TASKS)))
    names = ADAPTERS[:adapters]
    specs = {name: task(name, measured=measured) for name in TASKS}
    rows = zip((None, *names), np.vstack([np.full(len(TASKS), 0.5), scores]), strict=True)
    cells = [cell(who, name, row[j], seed) for who, row in rows for j, name in enumerate(TASKS) if measured]
    keys = [each.key for each in cells]
    summary = made_up_summary(names, TASKS, base=[0.5] * len(TASKS), scores=scores, cells=keys)
    with Registry.create(path) as store:
        for each in cells:
            store.put_cell(each)
        for digit, name in enumerate(ADAPTERS[:adapters], start=1):
            record = Adapter(
                name=name,
                base_model=base,
                base_digest=f"{len(base)}" * 64,
                weights_digest=str(digit) * 64,
                rank=8,
                target_modules=("q_proj",),
            )
            store.add_adapter(record, replace=True)
        for name, spec in specs.items():
            store.put_task(name, spec.digest if measured else "1" * 64, spec.model_dump(mode="json"))
        store.put_profile(b"", summary)
    return path


@pytest.mark.slow
def test_equal_gains_of_two_bases_agree(run: Run, tmp_path: Path) -> None:
    a = registry(tmp_path / "a.db", seed=0)
    b = registry(tmp_path / "b.db", seed=0, base="large")
    ended = run("compare", a, b, "--permutations", 199)
    assert ended.returncode == 0, ended.stderr
    assert "tiny: 9 adapters, 5 tasks" in ended.stdout
    assert "large: 9 adapters" in ended.stdout
    assert "The traits agree more than by chance on 9 common adapters" in ended.stdout
    assert "… over adapters, mean of tasks" in ended.stdout
    assert "rankings and routing decisions left out: gone has no task folder" in ended.stdout
    assert "warning" not in ended.stdout


@pytest.mark.slow
def test_choosing_by_a_small_base_is_said_in_figures(run: Run, tmp_path: Path) -> None:
    a = registry(tmp_path / "a.db", seed=0, measured=True)
    b = registry(tmp_path / "b.db", seed=0, base="large", measured=True)
    ended = run("compare", a, b, "--permutations", 199)
    assert ended.returncode == 0, ended.stderr
    printed = " ".join(ended.stdout.split())
    assert "of 180 pairs of adapters on a task, B tells" in printed
    assert "A ranks 100% of these alike (95% interval 100 to 100%" in printed
    assert "both routers choose alike in 100% of the requests" in printed
    for choice in ("best single adapter of A", "router of B", "best of each task, in hindsight"):
        assert printed.count(choice) == 2

    ended = run("compare", a, b, "--permutations", 199, "--json")
    found = json.loads(ended.stdout)
    assert found["B"]["bases"] == ["large"]
    assert found["ranking"]["alike"]["value"] == 1
    assert [each["way"] for each in found["routing"]] == ["known", "new"]
    assert found["routing"][0]["worth"]["B"]["router of A"]["less"] == 0
    assert len(found["agreement"]["by_task"]) == len(TASKS)
    assert found["agreement"]["columns"]["value"] == pytest.approx(1)


def test_unrelated_gains_are_not_called_agreement(run: Run, tmp_path: Path) -> None:
    a, b = registry(tmp_path / "a.db", seed=0), registry(tmp_path / "b.db", seed=1)
    ended = run("compare", a, b, "--permutations", 199)
    assert ended.returncode == 0, ended.stderr
    assert "Agreement of the traits is not shown" in ended.stdout


def test_tasks_with_other_rows_are_named(run: Run, tmp_path: Path) -> None:
    a, b = registry(tmp_path / "a.db", seed=0), registry(tmp_path / "b.db", seed=0)
    with Registry.open(b) as store:
        store.put_task("task3", "2" * 64, task("task3", measured=False).model_dump(mode="json"))
    ended = run("compare", a, b, "--permutations", 199)
    assert "not the same test rows or rules on both sides: task3;" in ended.stdout


def test_versions_of_one_registry_are_compared(run: Run, tmp_path: Path) -> None:
    a = registry(tmp_path / "a.db", seed=0)
    registry(a, seed=1)
    ended = run("compare", a, a, "--version-a", 1, "--permutations", 199)
    assert ended.returncode == 0, ended.stderr
    assert "version 1, tiny" in ended.stdout
    assert "version 2, tiny" in ended.stdout
    assert "both are of the base tiny: what differs is another method, seed or version" in ended.stdout


def test_a_profile_is_not_compared_with_itself(refusal: Run, tmp_path: Path) -> None:
    a = registry(tmp_path / "a.db", seed=0)
    assert "both are version 1" in str(refusal("compare", a, a))


def test_too_little_in_common_is_one_line(refusal: Run, tmp_path: Path) -> None:
    a = registry(tmp_path / "a.db", seed=0)
    b = registry(tmp_path / "b.db", seed=1, adapters=3)
    assert "3 adapters and 5 completely measured tasks are common" in str(refusal("compare", a, b))


@pytest.mark.parametrize("versions", [("--version-a", 7), ("--version-b", 7)])
def test_unknown_version_names_those_there_are(refusal: Run, tmp_path: Path, versions: tuple[str, int]) -> None:
    a, b = registry(tmp_path / "a.db", seed=0), registry(tmp_path / "b.db", seed=0)
    assert "no profile version 7; versions: 1" in str(refusal("compare", a, b, *versions))
