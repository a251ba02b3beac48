"""`traitroute adapters canary` says how canaries do, and takes the step that follows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import InputError, Registry
from traitroute.cli.canary import parse_share

from ..simulated_outcomes import enter_canary

Run = Callable[..., Any]


@pytest.fixture
def entered(profiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry in which coder gets a tenth of what it would win since two days ago, and surely harms."""
    path = tmp_path / "registry.db"
    path.write_bytes(profiled.read_bytes())
    with Registry.open(path) as registry:
        enter_canary(registry, "coder", "cook", (0.2, 0.6), share=0.1, count=3000)
    return path


def test_the_figures_are_shown_and_change_nothing(run: Run, entered: Path) -> None:
    before = entered.read_bytes()
    said = run("adapters", "canary", "--registry", entered).stdout
    assert "coder" in said and "10%" in said and "roll back" in said
    assert "surely worse than who would have answered" in said
    assert entered.read_bytes() == before


def test_a_step_is_taken_and_shown_with_its_reason(run: Run, entered: Path) -> None:
    done = run("adapters", "canary", "coder", "--step", "--registry", entered)
    assert done.returncode == 0
    assert "coder off: rolled back, -0." in done.stdout
    assert "of 3000 conversations" in " ".join(done.stdout.split())
    assert "auto gives it off" in run("adapters", "show", "coder", "--registry", entered).stdout
    listed = run("adapters", "list", "--registry", entered).stdout
    assert [line for line in listed.splitlines() if "coder" in line and "off" in line]


def test_a_share_is_set_by_hand_and_the_figures_then_are_kept(run: Run, entered: Path) -> None:
    assert run("adapters", "canary", "coder", "--to", "all", "--registry", entered).returncode == 0
    with Registry.open(entered) as registry:
        assert registry.adapter("coder").canary is None
        step = registry.canary_steps("coder")[-1]
    assert (step.share, step.why) == (1.0, "by hand")
    assert step.figures is not None
    assert step.figures["conversations"] == 3000


def test_everything_is_there_as_json(run: Run, entered: Path) -> None:
    told = json.loads(run("adapters", "canary", "coder", "--json", "--registry", entered).stdout)
    assert told["canaries"][0]["verdict"] == "roll back"
    assert told["steps"]["coder"][0]["why"] == "entered"


def test_without_any_the_way_to_one_is_said(run: Run, profiled: Path) -> None:
    assert "--canary 1%" in run("adapters", "canary", "--registry", profiled).stdout


@pytest.mark.parametrize(("given", "share"), [("1%", 0.01), ("0.1", 0.1), (" ALL ", 1.0), ("off", 0.0), ("100%", 1.0)])
def test_a_share_is_written_in_several_ways(given: str, share: float) -> None:
    assert parse_share(given) == pytest.approx(share)


@pytest.mark.parametrize("given", ["", "%", "10", "-1%", "nan", "half", "1e9%"])
def test_what_is_no_share_is_refused_with_examples(given: str) -> None:
    with pytest.raises(InputError, match=r"give 1%, 0\.1, all or off"):
        parse_share(given)
