"""One run of the whole offline flow on the real SmolLM2-135M, for all tests that need a trained adapter.

Tests that use it bear `xdist_group("real")`, which keeps them in one process.
"""

from pathlib import Path

import pytest
from traitroute.adapters import Registry
from traitroute.profiling import PACKAGED, Suite, profile


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
    "engine": "transformers",
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


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry of two adapters of SmolLM2 that were trained, and measured on five tasks."""
    pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")
    pytest.importorskip("gguf", reason="needs the profile extra: pip install 'traitroute[profile]'")
    folder = tmp_path_factory.mktemp("real")
    with Registry.create(folder / "registry.db") as registry:
        profile(Suite.model_validate(SUITE), registry, folder / "runs")
    return folder / "registry.db"
