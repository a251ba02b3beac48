"""`traitroute suggest-tasks` reads what servers saw, and ranks the tasks of a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import DemandWindow, Registry
from traitroute.cli.main import app
from traitroute.router import FitRequests, RoutingProfile, TrainingRows, fit_profile
from typer.testing import CliRunner

TEXTS = [f"please {verb} the {noun}" for verb in ("cook", "sue", "eat") for noun in "abcdefgh"]
STRANGE = [f"compute the sum of {i} and {i + 1} digit by digit" for i in range(40)]


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    gains = np.random.default_rng(0).integers(-1, 2, (len(TEXTS), 1)).astype(float)
    rows = [TrainingRows.read(STRANGE[:20], ["3"] * 20)]
    requests = FitRequests(TEXTS, [t.split()[1] for t in TEXTS], gains, sources=rows)
    profile = fit_profile(["chef"], requests, np.array([[1.0]]), n_traits=1)
    with Registry.create(tmp_path / "registry.db") as registry:
        registry.put_profile(profile.to_bytes(), made_up_summary(["chef"]))
    return tmp_path / "registry.db"


def put_window(path: Path, texts: list[str]) -> None:
    with Registry.open(path) as registry:
        stored = registry.latest_profile()
        assert stored is not None
        profile = RoutingProfile.from_bytes(stored.data)
        rows = profile.features.transform(texts) if texts else []
        registry.put_demand_window(
            DemandWindow(
                profile_version=1, requests=2 * len(texts), novel=len(texts), features=DemandWindow.pack(list(rows))
            )
        )


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["suggest-tasks", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_task_that_requests_lack_comes_first(registry: Path, tmp_path: Path) -> None:
    put_window(registry, STRANGE[20:])
    for name, texts in (("sums", STRANGE), ("poems", ["sing of spring"] * 3)):
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True)
        lines = [json.dumps({"input": text, "target": "3"}) for text in texts]
        (folder / "test.jsonl").write_text("\n".join(lines))
        (folder / "train.jsonl").write_text("\n".join(lines))
    output = run("--registry", str(registry), "--data", str(tmp_path / "tasks"))
    assert "40 requests in 30 days, 20 of them (50%)" in output
    assert "too little feedback" in output
    assert "sums" in output.split("profile next")[1]
    assert "poems" not in output
    assert f"next: traitroute tasks add {tmp_path / 'tasks' / 'sums'}" in output


def test_a_registry_that_no_server_routed_with_says_so(registry: Path) -> None:
    assert "no server has routed requests" in run("--registry", str(registry))


def test_a_folder_without_tasks_is_refused(registry: Path, tmp_path: Path) -> None:
    put_window(registry, STRANGE)
    given = ["suggest-tasks", "--registry", str(registry), "--data", str(tmp_path / "none")]
    result = CliRunner().invoke(app, given)
    assert "holds no folders of tasks" in str(result.exception)
