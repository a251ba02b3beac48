"""One `traitroute demo` on the real SmolLM2-135M, whole but small, for all tests that need a trained adapter.

Tests that use it bear `xdist_group("real")`, which keeps them in one process.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from traitroute.profiling import PACKAGED


def task(name: str, prompt: str, labels: list[str], **more: object) -> dict[str, object]:
    """A classification task of the mini suite's rows, with answers of few tokens."""
    return {
        "name": name,
        "rows": {"built_in": "mini"},
        "prompt": prompt + "\n{{ input }}",
        "labels": labels,
        "metric": "label",
        "test": 16,
        "max_tokens": 6,
        **more,
    }


SUITE = {
    "name": "real",
    "base_model": PACKAGED,
    "training": {"rank": 8, "alpha": 16, "learning_rate": 2e-3},
    "tasks": [
        task(
            "sentiment3",
            "Rate the remark as positive, neutral or negative.",
            ["negative", "neutral", "positive"],
            source=True,
            train=64,
        ),
        task(
            "toxicity",
            "Is this comment toxic or not toxic?",
            ["not toxic", "toxic"],
            source=True,
            train=32,
        ),
        task("sentiment2", "Is this review positive or negative?", ["negative", "positive"]),
        task("paraphrase", "Do the two sentences mean the same? Answer yes or no.", ["no", "yes"]),
        task(
            "entailment",
            "Does the premise entail the hypothesis? Answer entailment, neutral or contradiction.",
            ["contradiction", "entailment", "neutral"],
        ),
    ],
}


@dataclass(frozen=True)
class RealDemo:
    """A demo that has ended: what it printed, its registry, and what it left running."""

    printed: str
    registry: Path
    left: str


@pytest.fixture(scope="session")
def real_demo(tmp_path_factory: pytest.TempPathFactory) -> RealDemo:
    """The main job: train two adapters, measure them on five tasks, fit, serve with vLLM, route, stop."""
    pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")
    pytest.importorskip("gguf", reason="needs the profile extra: pip install 'traitroute[profile]'")
    folder = tmp_path_factory.mktemp("real")
    (folder / "suite.yaml").write_text(json.dumps(SUITE))
    command = [str(Path(sys.executable).with_name("traitroute")), "demo", "--suite", "suite.yaml", "--runs", "runs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    left = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True, check=False)
    return RealDemo(done.stdout, folder / "runs/registry.db", left.stdout)


@pytest.fixture(scope="session")
def real_run(real_demo: RealDemo) -> Path:
    """The registry of two adapters of SmolLM2 that were trained, and measured on five tasks."""
    return real_demo.registry
