"""The offline flow on the real SmolLM2-135M: training, measuring, killed runs, and both engines."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import AdapterState, Cell, Registry
from traitroute.profiling import PACKAGED, Suite, open_base_model, profile
from traitroute.profiling.base_model import BaseModelFolder

torch = pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
peft = pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")
pytest.importorskip("gguf", reason="needs the profile extra: pip install 'traitroute[profile]'")

pytestmark = pytest.mark.slow

CELLS = 3 * 3
"""Base and two adapters on three tasks."""


def small_suite() -> dict:
    def task(name: str, prompt: str, **more: object) -> dict:
        return {
            "name": name,
            "rows": {"built_in": "mini"},
            "prompt": prompt + "\n{{ input }}",
            "test": 12,
            "max_tokens": 10,
            **more,
        }

    pair = ["negative", "positive"]
    return {
        "name": "small",
        "base_model": PACKAGED,
        "engine": "transformers",
        "training": {"rank": 8, "alpha": 16, "learning_rate": 2e-3},
        "tasks": [
            task(
                "sentiment2",
                "Positive or negative?",
                labels=pair,
                metric="label",
                source=True,
                train=48,
            ),
            task("structured", "Turn it into JSON.", metric="json", source=True, train=24),
            task("paraphrase", "Same meaning? yes or no.", labels=["no", "yes"], metric="label"),
        ],
    }


@pytest.fixture(scope="module")
def base() -> BaseModelFolder:
    return open_base_model(PACKAGED)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, killed with SIGKILL twice on its way: in training, and in measuring."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "suite.yaml").write_text(json.dumps(small_suite()))
    _run_until(folder, lambda: (folder / "runs/sentiment2/training.json").is_file())
    _run_until(folder, lambda: _measured(folder) >= 2)
    return folder


def test_training_makes_a_folder_that_peft_loads_unchanged(run: Path, base: BaseModelFolder) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16)
    loaded = peft.PeftModel.from_pretrained(model, str(run / "runs/sentiment2"))
    assert any(p.abs().sum() > 0 for n, p in loaded.named_parameters() if "lora_B" in n)


def test_a_killed_run_goes_on_and_repeats_nothing(run: Path) -> None:
    trained = (run / "runs/sentiment2/adapter_model.safetensors").stat().st_mtime_ns
    with Registry.open(run / "t.db") as registry:
        before = {c.key: c for c in registry.cells()}
    assert 2 <= len(before) < CELLS

    with Registry.create(run / "t.db") as registry:
        result = profile(Suite.model_validate(small_suite()), registry, run / "runs")
        after = {c.key: c for c in registry.cells()}
        again = profile(Suite.model_validate(small_suite()), registry, run / "runs")

    assert (run / "runs/sentiment2/adapter_model.safetensors").stat().st_mtime_ns == trained
    assert len(after) == CELLS
    assert all(
        np.array_equal(after[key].outcomes.output_digest, cell.outcomes.output_digest) for key, cell in before.items()
    )
    assert [t.reused for t in result.training] == [True, True]
    assert all(t.reused for t in again.training)
    assert np.array_equal(again.matrix.scores, result.matrix.scores)


def test_training_teaches_what_it_should(run: Path) -> None:
    with Registry.create(run / "t.db") as registry:
        result = profile(Suite.model_validate(small_suite()), registry, run / "runs")
    sentiment = result.matrix.tasks.index("sentiment2")
    assert result.matrix.gains[0, sentiment] > 0.2


def test_profiling_again_leaves_adapters_routable_throughout(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[AdapterState] = []
    with Registry.create(run / "t.db") as registry:
        profile(Suite.model_validate(small_suite()), registry, run / "runs")
        find_cell = registry.find_cell

        def watch(key: str) -> Cell | None:
            states.extend(a.state for a in registry.adapters())
            return find_cell(key)

        monkeypatch.setattr(registry, "find_cell", watch)
        profile(Suite.model_validate(small_suite()), registry, run / "runs")
    assert set(states) == {AdapterState.READY}


def test_no_pickle_reaches_the_weight_store(run: Path) -> None:
    stored = {p.name for p in (run / "t.weights").rglob("*") if p.is_file()}
    assert stored == {"adapter_config.json", "adapter_model.safetensors"}


def _run_until(folder: Path, reached: Callable[[], bool]) -> None:
    """Start the command line on the suite and SIGKILL it once `reached()`."""
    command = [str(Path(sys.executable).with_name("traitroute")), "profile", "suite.yaml"]
    command += ["--registry", "t.db", "--runs", "runs"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while not reached():
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, "the run did not get there in 300 s"
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _measured(folder: Path) -> int:
    if not (folder / "t.db").is_file():
        return 0
    with Registry.open(folder / "t.db", read_only=True) as registry:
        return len(registry.cell_scores())
