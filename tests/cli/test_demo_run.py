"""The main job, whole but small: train, measure, fit, serve with vLLM, route, stop."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from traitroute.adapters import AdapterState, Registry

pytest.importorskip("vllm", reason="needs vLLM: pip install 'traitroute[serve]'")
pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]

SUITE = {
    "name": "small",
    "training": {"rank": 8, "alpha": 16, "learning_rate": 2e-3},
    "tasks": [
        {
            "name": "sentiment2",
            "rows": {"built_in": "mini"},
            "prompt": "Is this review positive or negative?\n{{ input }}",
            "labels": ["negative", "positive"],
            "metric": "label",
            "source": True,
            "train": 64,
            "test": 16,
            "max_tokens": 8,
        },
        {
            "name": "entailment",
            "rows": {"built_in": "mini"},
            "prompt": "Answer entailment, neutral or contradiction.\n{{ input }}",
            "labels": ["contradiction", "entailment", "neutral"],
            "metric": "label",
            "source": True,
            "train": 32,
            "test": 16,
            "max_tokens": 8,
        },
        {"name": "word_problems", "rows": {"built_in": "mini"}, "metric": "number", "test": 16, "max_tokens": 32},
    ],
}


def test_the_whole_line_runs_and_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE))
    command = [str(Path(sys.executable).with_name("traitroute")), "demo"]
    command += ["--suite", "suite.yaml", "--runs", "runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]

    for stage in ("train adapters", "measure cells", "start vllm serve", "send requests"):
        assert f"\n{stage}: begins\n" in done.stdout
        assert f"\n{stage}: done in " in done.stdout
    assert "demo: 2 adapters, 10 requests" in done.stdout
    chosen = re.findall(r"│ (sentiment2|entailment|base) +│ [+-]\d", done.stdout)
    assert len(chosen) == 10
    assert {"sentiment2", "entailment"} & set(chosen[:4])
    assert set(chosen[-4:]) == {"base"}
    with Registry.open(tmp_path / "runs/registry.db", read_only=True) as registry:
        assert [a.state for a in registry.adapters()] == [AdapterState.READY] * 2
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert left.stdout == b""
