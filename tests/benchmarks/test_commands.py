"""Every benchmark's command still runs: all of them as far as their help, and in a small form those that need no
server.
"""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMANDS = sorted(file.stem for file in BENCHMARKS.glob("*.py") if "__main__" in file.read_text())
SMALL = {
    "anchor_errors": ["--draws", "1", "--known", "4"],
    "canary": ["--entries", "1", "--daily", "300", "--adapters", "harmful"],
    "lift": ["--months", "1", "--worlds", "held back"],
    "log_templates": ["--requests", "300"],
    "missing_rows": ["--sizes", "3", "--adapters", "2", "--draws", "1"],
    "first_profile": ["--folds", "1", "--only", "anchors", "--shares", "0.3"],
    "paper_cells": ["--tasks", "svamp", "--beside", "toxicity_shuffled=toxicity_wiki"],
    "recalibration": ["--seeds", "1"],
    "registry_scale": ["--sizes", "100"],
    "reprofiling": ["--cases", "1", "--only", "random"],
    "reprofiling_column": ["--cases", "1"],
    "reprofiling_fleets": ["--cases", "1", "--sizes", "3"],
    "routing": ["--only", "base,random", "--protocols", "new_rows", "--processes", "1"],
    # Envoy is there as a package for Linux alone.
    **({"serving": ["extproc", "--texts", "2"]} if sys.platform == "linux" else {}),
    "skills": ["--texts", "4", "--plans", "1", "--sizes", "10"],
    "suggestions": ["--cases", "1"],
    "twins": [str(BENCHMARKS / "routing" / "smollm2.safetensors")],
}
"""Arguments with which a command takes seconds; its figures say nothing then."""


def run(command: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"{command}.py", *arguments])
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    runpy.run_path(str(BENCHMARKS / f"{command}.py"), run_name="__main__")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        with pytest.raises(SystemExit) as end:
            run(command, "--help", monkeypatch=monkeypatch)
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("traitroute") or (BENCHMARKS / (exc.name or "").split(".")[0]).exists():
            raise
        pytest.skip(f"not installed: {exc.name}")
    assert end.value.code in (None, 0)
    assert "usage" in capsys.readouterr().out.lower()


@pytest.mark.slow
@pytest.mark.parametrize("command", SMALL)
def test_a_command_runs_in_a_small_form(command: str, tmp_path: Path) -> None:
    # In a process of its own: some keep themselves to one core.
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{command}.py", *SMALL[command]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) > 2
