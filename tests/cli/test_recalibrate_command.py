"""`traitroute recalibrate` shows what feedback says, and changes the profile only when told to."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Feedback, Registry
from traitroute.cli.main import app
from traitroute.router import Corrections, FitRequests, RoutingProfile, fit_profile
from traitroute.serving.profile_snapshot import DecisionToken
from traitroute.serving.skills.recalibration import BOUND
from typer.testing import CliRunner

TEXTS = [f"please {verb} the {noun}" for verb in ("cook", "sue", "eat") for noun in "abcdefgh"]


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "registry.db"
    gains = np.random.default_rng(0).integers(-1, 2, (len(TEXTS), 2)).astype(float)
    requests = FitRequests(TEXTS, [text.split()[1] for text in TEXTS], gains)
    profile = fit_profile(["chef", "idle"], requests, np.array([[1.0], [-1.0]]), n_traits=1)
    with Registry.create(path) as registry:
        registry.put_profile(profile.to_bytes(), made_up_summary(["chef", "idle"]))
        for i in range(100):
            token = DecisionToken(None, 0.0, 0.5, 1, kind="cook").sign(b"key")
            registry.put_feedback(
                Feedback(token=token, adapter=None, predicted_gain=0.0, profile_version=1, reward=i % 2)
            )
    return path


def tell(path: Path, reward: float, count: int = 200) -> None:
    from traitroute.adapters import Adapter

    with Registry.open(path) as registry:
        registry.add_adapter(
            Adapter(
                name="chef",
                base_model="tiny",
                base_digest="0" * 64,
                weights_digest="1" * 64,
                rank=4,
                target_modules=("q_proj",),
            )
        )
        for _ in range(count):
            token = replace(DecisionToken.of("chef", 0.2, 0.5, 1, "1" * 64), kind="cook").sign(b"key")
            registry.put_feedback(
                Feedback(token=token, adapter="chef", predicted_gain=0.2, profile_version=1, reward=reward)
            )


def run(path: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["recalibrate", "--registry", str(path), *options])
    assert result.exit_code == 0, result.output
    return result.output


def in_force(path: Path) -> Corrections | None:
    with Registry.open(path, read_only=True) as registry:
        stored = registry.latest_profile()
    assert stored is not None
    return RoutingProfile.from_bytes(stored.data).corrections


def test_nothing_changes_without_apply(registry: Path) -> None:
    tell(registry, 0.0)
    for output in (run(registry), run(registry, "--dry-run")):
        assert re.search(r"cook +│ chef +│ 200 +│ 100 +│ -0\.\d+ ± \S+ +│ \+0\.000 │ -0\.\d+", output), output
        assert "nothing was changed" in output
    with Registry.open(registry, read_only=True) as store:
        assert store.profile_versions() == [1]


def test_apply_keeps_bounded_corrections_and_one_command_goes_back(registry: Path) -> None:
    tell(registry, 0.0)
    assert "profile version 2" in run(registry, "--apply")
    kept = in_force(registry)
    assert kept is not None
    assert kept.anywhere.tolist() == [True, False]
    assert kept.bound == [BOUND]
    assert "has these corrections already" in run(registry, "--apply")
    rolled_back = CliRunner().invoke(app, ["profiles", "rollback", "1", "--registry", str(registry)])
    assert rolled_back.exit_code == 0, rolled_back.output
    assert in_force(registry) is None


def test_reset_takes_all_corrections_back(registry: Path) -> None:
    tell(registry, 0.0)
    run(registry, "--apply")
    assert "profile version 3" in run(registry, "--apply", "--reset")
    assert in_force(registry) is None


def test_too_little_feedback_is_said(registry: Path) -> None:
    tell(registry, 0.0, count=5)
    assert "too few decisions" in run(registry)
