"""production-stack's own router, from its source or its image, with routing inside and a real vLLM behind."""

import asyncio
import os
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from serving.stand import TINY_OPTIONS, made_registry, tiny_base
from serving.topics import TOPICS
from serving.truth import Truth
from traitroute.adapters import Registry
from traitroute.serving.state import AUTO
from traitroute.serving.vllm import free_port, running_process, serve_environment

from .mixed import answered_by_base, ask_mixed, exact, prompts, read_truth, summary

ASKED = "TRAITROUTE_TEST_PRODUCTION_STACK"
if ASKED not in os.environ:
    pytest.skip(f"set {ASKED} to a vllm-router beside which traitroute is installed", allow_module_level=True)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
__all__ = ["exact"]
CONTEXT = "256"
EXAMPLE = Path(__file__).parents[3] / "examples" / "production_stack" / "run.py"


@dataclass(frozen=True)
class Router:
    url: str
    base: Path
    registry: Registry
    truth: Truth

    @property
    def names(self) -> dict[str, str]:
        """What the engine calls each adapter."""
        return {each.name: f"{each.name}@{each.weights_digest}" for each in self.registry.servable()}


@pytest.fixture(scope="module")
def router(exact: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    folder = tmp_path_factory.mktemp("stack")
    base = tiny_base(folder / "tiny")
    registry = made_registry(folder / "registry", base)
    truth = read_truth(base, registry, prompts())
    example = runpy.run_path(str(EXAMPLE))
    ports = free_port(), free_port()
    engine, url = (f"http://127.0.0.1:{port}" for port in ports)
    asks = example["engine_command"](registry, base, port=ports[0], options=(*TINY_OPTIONS, "--max-model-len", CONTEXT))
    routes = example["router_command"](registry, base, router=os.environ[ASKED], engine=engine, port=ports[1])
    variables = serve_environment(registry.path, base) | {"VLLM_PLUGINS": ""}
    routing = os.environ | {"TRAITROUTE_REGISTRY": str(registry.path)}
    with (
        running_process(asks, engine, log_path=folder / "engine.log", environment=variables),
        running_process(routes, url, log_path=folder / "router.log", environment=routing),
    ):
        yield Router(url, base, registry, truth)


def test_what_the_header_names_are_the_weights_that_answered(router: Router) -> None:
    answers = asyncio.run(ask_mixed(router.url, router.truth, 500))
    told = summary(router.truth, answers)
    print(told)
    assert told["verdicts"] == {"right": 500}, told
    for answer in answers:
        name = answer.adapter if answer.asked == AUTO else answer.asked
        assert answer.model == router.names.get(name, router.base.name)
    assert len({a.adapter for a in answers if a.asked == AUTO}) == len(TOPICS) + 1


def test_the_routers_own_pages_are_there(router: Router) -> None:
    with httpx.Client(base_url=router.url, timeout=60, trust_env=False) as client:
        assert client.get("/health").json() == {"status": "healthy"}
        metrics = client.get("/metrics").text
        assert "vllm:num_requests_running" in metrics and "traitroute_decisions_total" in metrics
        assert client.post("/sleep").status_code == 404


def test_a_broken_chooser_means_base_and_a_reason(router: Router) -> None:
    asyncio.run(answered_by_base(router.url, router.truth, router.registry))
