"""The offline flow on a tiny model: training, measuring and killed runs. What it teaches is asked of a real one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import AdapterState, Cell, Registry
from traitroute.profiling import GivenAdapter, Suite, profile
from traitroute.profiling.execution.processes import LocalProcesses
from traitroute.profiling.study import Study
from traitroute.serving.engines.probe import Effect

torch = pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
peft = pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")

pytestmark = pytest.mark.slow

CELLS = 3 * 4
"""Base and two adapters on three tasks and everyday requests."""
MEASURED = 2
"""Cells that a killed run has measured."""


def small_suite(base: Path) -> dict:
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
        "base_model": str(base),
        "engine": "transformers",
        "training": {"rank": 8, "alpha": 16, "learning_rate": 1e-2},
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
def run(tmp_path_factory: pytest.TempPathFactory, tiny_chat: Path) -> Path:
    """A finished run, killed with SIGKILL twice on its way: in training, and in measuring."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "suite.yaml").write_text(json.dumps(small_suite(tiny_chat)))
    _run_until(folder, lambda: (folder / "runs/sentiment2/training.json").is_file())
    _run_until_killed(folder)
    return folder


@pytest.fixture
def suite(tiny_chat: Path) -> Suite:
    return Suite.model_validate(small_suite(tiny_chat))


def test_training_makes_a_folder_that_peft_loads_unchanged(run: Path, tiny_chat: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_chat, dtype=torch.bfloat16)
    loaded = peft.PeftModel.from_pretrained(model, str(run / "runs/sentiment2"))
    assert any(p.abs().sum() > 0 for n, p in loaded.named_parameters() if "lora_B" in n)


def test_a_killed_run_goes_on_and_repeats_nothing(run: Path, suite: Suite) -> None:
    trained = (run / "runs/sentiment2/adapter_model.safetensors").stat().st_mtime_ns
    with Registry.open(run / "t.db") as registry:
        before = {c.key: c for c in registry.cells()}
    assert len(before) == MEASURED < CELLS

    with Registry.create(run / "t.db") as registry:
        result = profile(suite, registry, run / "runs")
        after = {c.key: c for c in registry.cells()}
        again = profile(suite, registry, run / "runs")

    assert (run / "runs/sentiment2/adapter_model.safetensors").stat().st_mtime_ns == trained
    assert len(after) == CELLS
    assert all(
        np.array_equal(after[key].outcomes.output_digest, cell.outcomes.output_digest) for key, cell in before.items()
    )
    assert [t.reused for t in result.training] == [True, True]
    assert all(t.reused for t in again.training)
    assert np.array_equal(again.matrix.scores, result.matrix.scores)


def test_two_processes_make_what_one_makes(run: Path, suite: Suite, tmp_path: Path) -> None:
    def digests(registry: Registry) -> dict[str, bytes]:
        return {cell.key: cell.outcomes.output_digest.tobytes() for cell in registry.cells()}

    with Registry.create(run / "t.db") as registry:
        one = profile(suite, registry, run / "runs")
        made = digests(registry)
    with Registry.create(tmp_path / "two.db") as registry, LocalProcesses(2) as processes:
        two = profile(suite, registry, tmp_path / "runs", executor=processes)
        assert digests(registry) == made
        assert all(Effect.measured(adapter) is not None for adapter in registry.adapters())
        assert sorted(file.name for file in (tmp_path / "runs").iterdir()) == ["sentiment2", "structured"]
    assert [each.reused for each in two.training] == [False, False]
    assert np.array_equal(two.matrix.scores, one.matrix.scores)


@pytest.mark.xdist_group("real")
def test_training_teaches_a_real_model_what_it_should(real_run: Path) -> None:
    with Registry.open(real_run, read_only=True) as registry:
        stored = registry.latest_profile()
    assert stored is not None
    summary = stored.summary
    adapter, task = summary.adapters.index("sentiment3"), summary.tasks.index("sentiment3")
    assert summary.scores[adapter, task] > summary.base[task] + 0.2


def test_profiling_again_leaves_adapters_routable_throughout(
    run: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[AdapterState] = []
    with Registry.create(run / "t.db") as registry:
        profile(suite, registry, run / "runs")
        find_cell = registry.find_cell

        def watch(key: str) -> Cell | None:
            states.extend(a.state for a in registry.adapters())
            return find_cell(key)

        monkeypatch.setattr(registry, "find_cell", watch)
        profile(suite, registry, run / "runs")
    assert set(states) == {AdapterState.READY}


def test_adapters_that_are_there_are_profiled_beside_those_that_are_trained(
    run: Path, suite: Suite, tmp_path: Path, tiny_chat: Path, tiny: Any
) -> None:
    folder = tiny.save_adapter(tiny_chat, tmp_path / "loras" / "polite", seed=5)
    # Its configuration names the base model by its folder, as the suite does.
    given = GivenAdapter(name="polite", uri=str(folder))
    with Registry.create(run / "t.db") as registry:
        mixed = profile(suite.with_adapters([given]), registry, run / "runs")
        assert mixed.matrix.adapters == ("sentiment2", "structured", "polite")
        assert registry.adapter("polite").state == AdapterState.READY
        assert (Study.open(registry).sources, len(registry.cells())) == (("sentiment2", "structured"), CELLS + 4)
        again = profile(suite.with_adapters([GivenAdapter(name="polite")]), registry, run / "runs")
    assert np.array_equal(again.matrix.scores, mixed.matrix.scores)


def test_the_effect_of_every_adapter_on_the_probe_is_kept(run: Path, suite: Suite) -> None:
    """Of a tiny model's bytes as tokens too."""
    with Registry.create(run / "t.db") as registry:
        profile(suite, registry, run / "runs")
        effects = [Effect.measured(adapter) for adapter in registry.adapters()]
    assert len(effects) >= 2
    assert all(effect is not None and effect.is_shown for effect in effects)


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


KILLED = f"""
import os, signal, sys
from traitroute.adapters import Registry
from traitroute.cli import main
add_cell, measured = Registry.add_cell, []

def add_and_die(registry, cell):
    kept = add_cell(registry, cell)
    measured.append(cell)
    if len(measured) == {MEASURED}:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept

Registry.add_cell = add_and_die
sys.argv = ["traitroute", "profile", "suite.yaml", "--registry", "t.db", "--runs", "runs"]
main()
"""


def _run_until_killed(folder: Path) -> None:
    """Run the command line on the suite; it is killed as its last cell is written."""
    ended = subprocess.run([sys.executable, "-c", KILLED], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
