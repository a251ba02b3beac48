"""A run with an ablation, with each PEFT method, on a tiny model."""

from pathlib import Path

import pytest
from traitroute.adapters import AdapterState, Registry
from traitroute.profiling import Suite, profile
from traitroute.profiling.study import Study

pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")

pytestmark = pytest.mark.slow


def suite(base: Path, method: str, learning_rate: float, train: int = 16) -> Suite:
    def task(name: str, prompt: str, **more: object) -> dict:
        rows = {"name": name, "rows": {"built_in": "mini"}, "prompt": prompt + "\n{{ input }}"}
        return {**rows, "train": train, "test": 6, "max_tokens": 8, **more}

    pair = {"labels": ["negative", "positive"], "metric": "label"}
    return Suite.model_validate(
        {
            "name": "ablated",
            "base_model": str(base),
            "engine": "transformers",
            "training": {"method": method, "rank": 4, "learning_rate": learning_rate},
            "tasks": [
                task("sentiment2", "Positive or negative?", source=True, **pair),
                task("structured", "Turn it into JSON.", metric="json", source=True),
                task("word_problems", "Solve it.", metric="number"),
            ],
            "ablations": [
                {"name": "only_stops", "of": "sentiment2", "change": "stop_only"},
                {
                    "name": "again",
                    "of": "sentiment2",
                    "change": "retrained",
                    "seed": 1,
                    "measured_on": ["word_problems"],
                },
            ],
            "keep_outputs": True,
        }
    )


@pytest.mark.parametrize(
    ("method", "learning_rate", "state"),
    [
        ("rslora", 2e-3, AdapterState.READY),
        ("dora", 2e-3, AdapterState.PENDING),
        ("ia3", 3e-1, AdapterState.PENDING),
    ],
)
def test_every_method_is_profiled_and_only_what_vllm_serves_is_routed(
    tmp_path: Path, tiny_chat: Path, method: str, learning_rate: float, state: AdapterState
) -> None:
    with Registry.create(tmp_path / "t.db") as registry:
        result = profile(suite(tiny_chat, method, learning_rate), registry, tmp_path / "runs")
        adapters = registry.adapters()
        states = {a.name: (a.method, a.state) for a in adapters}
        study = Study.open(registry)
    assert states == {
        "sentiment2": (method, state),
        "structured": (method, state),
        "only_stops": (method, AdapterState.PENDING),
        "again": (method, AdapterState.PENDING),
    }
    assert result.matrix.adapters == study.adapters == ("sentiment2", "structured")
    assert ("only_stops", "sentiment2") in study.outcomes
    assert ("only_stops", "word_problems") not in study.outcomes
    assert ("again", "word_problems") in study.outcomes
    assert len({adapter.weights_digest for adapter in adapters}) == len(adapters)
    assert len(study.outcomes["only_stops", "structured"].texts or []) == 6


def test_an_adapter_that_learns_only_to_stop_writes_less(tmp_path: Path, tiny_chat: Path) -> None:
    with Registry.create(tmp_path / "t.db") as registry:
        profile(suite(tiny_chat, "lora", 2e-2, train=48), registry, tmp_path / "runs")
        outcomes = Study.open(registry).outcomes
    tokens = {who: outcomes[who, "structured"].output_tokens.mean() for who in (None, "only_stops")}
    assert tokens["only_stops"] < tokens[None] / 2
