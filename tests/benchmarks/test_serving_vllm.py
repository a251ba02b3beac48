"""A real vLLM under the benchmarks' mixed load, for seconds: no answer may be by another adapter than header and
model name.
"""

import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving.load import measure_load
from serving.replacement import measure_replacement
from serving.stand import Stand

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vllm")]

STREAMS = 60
SETTLED_S = 10
"""Not the two seconds that are promised: the machine that tests may be busy."""


def answered(stand: Stand) -> dict[str, float]:
    """How many requests each engine answered."""
    headers = {"authorization": f"Bearer {stand.key}"}
    shown = httpx.get(f"{stand.server.base_url}/metrics", headers=headers).text
    metrics = text_string_to_metric_families(shown)
    counts: dict[str, float] = {}
    for sample in (s for family in metrics for s in family.samples):
        if sample.name == "vllm:request_success_total":
            engine = sample.labels["engine"]
            counts[engine] = counts.get(engine, 0) + sample.value
    return counts


def test_two_engines_each_answer_by_the_adapter_asked_for(tiny_house, vllm_server) -> None:
    stand = tiny_house.stand(vllm_server)
    before = answered(stand)
    found = asyncio.run(measure_load(stand, STREAMS, 5, lambda: None, seed=0))
    engines = {name: count - before.get(name, 0) for name, count in answered(stand).items()}
    assert found.statuses == {"200": found.requests}
    assert found.verdicts == {"right": found.requests}
    assert found.kinds["adapter"] > 0
    assert len(engines) == 2
    assert min(engines.values()) > STREAMS


def test_behind_a_gateway_vllm_loads_what_is_asked_for_and_answers_by_it(tiny_house, gateway_server) -> None:
    stand = tiny_house.stand(gateway_server)
    found = asyncio.run(measure_load(stand, STREAMS, 5, lambda: None, seed=0))
    assert found.statuses == {"200": found.requests}
    assert found.verdicts == {"right": found.requests}
    assert found.adapters == len(stand.rows)
    assert found.kinds["adapter"] > 0


def test_replaced_weights_answer_once_they_are_admitted_and_never_before(tiny_house, vllm_server) -> None:
    stand = tiny_house.stand(vllm_server)
    found = asyncio.run(measure_replacement(stand, STREAMS, 3, seen_within_s=SETTLED_S, seed=0))
    assert found.statuses == {"200": found.requests}
    assert set(found.before) == {"old"}
    assert set(found.after) == {"new"}
    assert found.wrong == 0
