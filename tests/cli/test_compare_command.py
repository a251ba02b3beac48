"""`traitroute compare` over two registries with made-up gains."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Adapter, Registry

Run = Callable[..., CompletedProcess[str]]
ADAPTERS = [f"adapter{i}" for i in range(9)]
TASKS = [f"task{j}" for j in range(5)]


def registry(path: Path, *, seed: int, base: str = "tiny", adapters: int = 9) -> Path:
    scores = np.random.default_rng(seed).uniform(size=(adapters, len(TASKS)))
    summary = made_up_summary(ADAPTERS[:adapters], TASKS, base=[0.5] * len(TASKS), scores=scores)
    with Registry.create(path) as store:
        for digit, name in enumerate(ADAPTERS[:adapters], start=1):
            record = Adapter(
                name=name,
                base_model=base,
                base_digest="0" * 64,
                weights_digest=str(digit) * 64,
                rank=8,
                target_modules=("q_proj",),
            )
            store.add_adapter(record, replace=True)
        for task in TASKS:
            store.put_task(task, "1" * 64, {})
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
    assert "warning" not in ended.stdout


def test_unrelated_gains_are_not_called_agreement(run: Run, tmp_path: Path) -> None:
    a, b = registry(tmp_path / "a.db", seed=0), registry(tmp_path / "b.db", seed=1)
    ended = run("compare", a, b, "--permutations", 199)
    assert ended.returncode == 0, ended.stderr
    assert "Agreement of the traits is not shown" in ended.stdout


def test_tasks_with_other_rows_are_named(run: Run, tmp_path: Path) -> None:
    a, b = registry(tmp_path / "a.db", seed=0), registry(tmp_path / "b.db", seed=0)
    with Registry.open(b) as store:
        store.put_task("task3", "2" * 64, {})
    ended = run("compare", a, b, "--permutations", 199)
    assert "not the same test rows or rules on both sides: task3;" in ended.stdout


def test_versions_of_one_registry_are_compared(run: Run, tmp_path: Path) -> None:
    a = registry(tmp_path / "a.db", seed=0)
    registry(a, seed=1)
    ended = run("compare", a, a, "--version-a", 1, "--permutations", 199)
    assert ended.returncode == 0, ended.stderr
    assert "version 1, tiny" in ended.stdout
    assert "version 2, tiny" in ended.stdout


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
