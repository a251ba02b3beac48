"""Both engines give the same cells on a real adapter and on one merged of two, within the stated tolerance.

Greedy texts of a bfloat16 model part ways at near-ties, and merging rounds the merged weights, so equality
is asked of what routing rests on: likelihoods per token, label probabilities and judged answers.
"""

from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import Adapter, Outcomes, Recipe, Registry, WeightStore
from traitroute.profiling import PACKAGED, Suite, Task, open_base_model
from traitroute.profiling.composites.merging import Merger, read_parents
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

ADAPTER, MERGED = "sentiment3", "merged"
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
def cells(real_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cells, Cells]:
    base, weights = open_base_model(PACKAGED), WeightStore(tmp_path_factory.mktemp("weights"))
    with Registry.open(real_run, read_only=True) as registry:
        parents = [registry.adapter(name) for name in (ADAPTER, "toxicity")]
        for parent in parents:
            weights.add(registry.weights.path(parent.weights_digest))
    adapters = [parents[0], _merged(parents, weights)]
    embedded = _measure(open_engine("transformers", base.path, weights, adapters), adapters)
    vllm = _measure(open_engine("vllm", base.path, weights, adapters), adapters)
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


def test_a_merged_adapter_is_the_same_on_both_and_no_other(cells: tuple[Cells, Cells]) -> None:
    embedded, vllm = cells
    for task in TASKS:
        merged = vllm[MERGED, task.name].log_likelihood
        off = {
            name: np.abs(merged - embedded[name, task.name].log_likelihood).mean() for name in (MERGED, ADAPTER, "base")
        }
        assert off[MERGED] < min(off[ADAPTER], off["base"]) / 2


def _merged(parents: list[Adapter], weights: WeightStore) -> Adapter:
    """The sum of both, as `traitroute compose` makes it."""
    recipe = Recipe(
        parents=tuple(a.name for a in parents),
        digests=tuple(a.weights_digest for a in parents),
        weights=(0.6, 0.4),
        method="cat",
        rank=sum(a.rank for a in parents),
    )
    with weights.scratch_folder() as scratch:
        Merger(read_parents(parents, weights), weights).merge(recipe, scratch / MERGED)
        files = weights.add(scratch / MERGED)
    return files.adapter(MERGED, parents[0].base_model, parents[0].base_digest)


def _measure(engine: Engine, adapters: list[Adapter]) -> Cells:
    """Base and adapters in one call, so that their items could meet in a batch."""
    measured: Cells = {}
    try:
        for task in TASKS:
            examples = task.test_examples
            names = {"base": None} | {a.name: a for a in adapters}
            results = engine.run([request_for(task, e, a) for e in examples for a in names.values()])
            for offset, name in enumerate(names):
                measured[name, task.name] = to_outcomes(task, examples, results[offset :: len(names)])
    finally:
        engine.close()
    return measured


def _pairs(cells: tuple[Cells, Cells]) -> list[tuple[Outcomes, Outcomes]]:
    embedded, vllm = cells
    return [(embedded[key], vllm[key]) for key in embedded]
