"""Ray Serve LLM with routing in its ingress: real replicas of real vLLM, on a Ray node of this machine."""

import asyncio
import os
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from serving.stand import TINY_CONTEXT, made_registry, tiny_base
from serving.topics import TOPICS
from serving.truth import Truth
from traitroute.adapters import Registry
from traitroute.serving.state import AUTO
from traitroute.serving.vllm import free_port

from ...ray_nodes import ASKED, NOT_ASKED, head_node
from .mixed import answered_by_base, ask_mixed, exact, prompts, read_truth, summary

if ASKED not in os.environ:
    pytest.skip(NOT_ASKED, allow_module_level=True)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
__all__ = ["exact"]
EXAMPLE = Path(__file__).parents[3] / "examples" / "ray_serve" / "app.py"


@dataclass(frozen=True)
class Cluster:
    url: str
    base: Path
    registry: Registry
    truth: Truth


@pytest.fixture(scope="module")
def cluster(exact: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    import ray
    from ray import serve

    folder, port = tmp_path_factory.mktemp("ray"), free_port()
    with head_node({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, num_cpus=4) as nodes:
        ray.init(nodes.address, log_to_driver=False)
        serve.start(http_options={"port": port})
        base = tiny_base(folder / "tiny")
        registry = made_registry(folder / "registry", base)
        truth = read_truth(base, registry, prompts())
        example = runpy.run_path(str(EXAMPLE))["app"]
        serve.run(example({"registry": str(registry.path), "base": str(base), "context": str(TINY_CONTEXT)}))
        yield Cluster(f"http://127.0.0.1:{port}", base, registry, truth)
        serve.shutdown()
        ray.shutdown()


def test_what_the_header_names_are_the_weights_that_answered(cluster: Cluster) -> None:
    answers = asyncio.run(ask_mixed(cluster.url, cluster.truth, 500))
    told = summary(cluster.truth, answers)
    print(told)
    assert told["verdicts"] == {"right": 500}, told
    digests = {adapter.name: adapter.weights_digest for adapter in cluster.registry.servable()}
    for answer in answers:
        name = answer.adapter if answer.asked == AUTO else answer.asked
        digest = digests.get(name)
        assert answer.model == (f"{cluster.base.name}:{name}@{digest}" if digest else cluster.base.name)
    assert len({a.adapter for a in answers if a.asked == AUTO}) == len(TOPICS) + 1


def test_a_broken_chooser_means_base_and_a_reason(cluster: Cluster) -> None:
    asyncio.run(answered_by_base(cluster.url, cluster.truth, cluster.registry))
