"""Both engines give the same cells on a real adapter, within the stated tolerance.

Greedy texts of a bfloat16 model part ways at near-ties, and merging rounds the merged weights, so equality
is asked of what routing rests on: likelihoods per token, label probabilities and judged answers.
"""

from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import Adapter, Outcomes, Registry
from traitroute.profiling import PACKAGED, Suite, Task, open_base_model
from traitroute.profiling.matrix.measure import request_for, to_outcomes
from traitroute.serving import Engine, open_engine

from ..real_run import SUITE

pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")
pytest.importorskip("vllm", reason="needs vLLM: pip install 'traitroute[serve]'")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real")]

LOG_LIKELIHOOD_PER_TOKEN = 0.25
"""Logits between 16 and 32 are 0.125 apart in bfloat16, and a label is a token or two; measured 0.13."""
LABEL_PROBABILITY = 0.05
AGREEING_ANSWERS = 0.9

ADAPTER = "sentiment3"
TASKS = [
    *(task for task in Suite.model_validate(SUITE).tasks if task.name == ADAPTER),
    Task.model_validate(
        {
            "name": "word_problems",
            "rows": {"built_in": "mini"},
            "metric": "number",
            "test": 12,
            "max_tokens": 24,
        }
    ),
]
Cells = dict[tuple[str, str], Outcomes]


@pytest.fixture(scope="module")
def cells(real_run: Path) -> tuple[Cells, Cells]:
    base = open_base_model(PACKAGED)
    with Registry.open(real_run, read_only=True) as registry:
        adapter, weights = registry.adapter(ADAPTER), registry.weights
    embedded = _measure(open_engine("transformers", base.path, weights, [adapter]), adapter)
    vllm = _measure(open_engine("vllm", base.path, weights, [adapter]), adapter)
    return embedded, vllm


def test_log_likelihoods_agree_per_token(cells: tuple[Cells, Cells]) -> None:
    for a, b in _pairs(cells):
        assert np.array_equal(a.target_tokens, b.target_tokens)
        off = np.abs(a.log_likelihood - b.log_likelihood) / a.target_tokens
        assert off.mean() < LOG_LIKELIHOOD_PER_TOKEN


def test_label_probabilities_agree(cells: tuple[Cells, Cells]) -> None:
    for a, b in _pairs(cells):
        if a.label_probabilities.size:
            off = np.abs(a.label_probabilities - b.label_probabilities)
            assert off.mean() < LABEL_PROBABILITY


def test_judged_answers_agree(cells: tuple[Cells, Cells]) -> None:
    for a, b in _pairs(cells):
        assert np.mean(a.strict == b.strict) >= AGREEING_ANSWERS


def test_the_adapter_changes_what_both_engines_say(cells: tuple[Cells, Cells]) -> None:
    for engine in cells:
        base, adapted = engine["base", ADAPTER], engine[ADAPTER, ADAPTER]
        assert adapted.strict.mean() > base.strict.mean()
        assert not np.array_equal(base.output_digest, adapted.output_digest)


def _measure(engine: Engine, adapter: Adapter) -> Cells:
    """Base and adapter in one call, so that their items could meet in a batch."""
    measured: Cells = {}
    try:
        for task in TASKS:
            examples = task.test_examples
            items = [(a, e) for e in examples for a in (None, adapter)]
            results = engine.run([request_for(task, e, a) for a, e in items])
            for offset, name in enumerate(("base", adapter.name)):
                measured[name, task.name] = to_outcomes(task, examples, results[offset::2])
    finally:
        engine.close()
    return measured


def _pairs(cells: tuple[Cells, Cells]) -> list[tuple[Outcomes, Outcomes]]:
    embedded, vllm = cells
    return [(embedded[key], vllm[key]) for key in embedded]
