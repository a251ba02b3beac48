"""A worker that is told to compares adapters on recurring requests: once, whatever becomes of it."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from traitroute.adapters import AdapterState, DemandWindow, Registry, Sample
from traitroute.adapters.registry.registry import copy_registry
from traitroute.profiling.matrix.profiled import profiled_tasks
from traitroute.router import RoutingProfile
from traitroute.serving.engines import EngineRequest, TransformersEngine
from traitroute.serving.traffic.sampling import KEY, SampleKeys

from ...servers import serving
from .conftest import House, Site, open_site

pytestmark = pytest.mark.slow
KIND, COUNT = "3f9a01c2", 24
SHOWN = re.compile(r"\[Answer A\]\n(.*?)\n\n\[Answer B\]\n(.*?)\n\n\[End\]", re.DOTALL)
TEXTS = [f"w1{i % 10} w60 w{40 + i % 20} w61 w{33 + i // 2}" for i in range(COUNT)]


@dataclass
class JudgeServer:
    """A judge behind HTTP that knows the right answers, and writes down what it is asked."""

    right: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: Request) -> JSONResponse:
        content = (await request.json())["messages"][0]["content"]
        self.asked.append(content)
        first, second = (text in self.right for text in SHOWN.findall(content)[-1])
        said = "[[tie]]" if first == second else ("[[A]]" if first else "[[B]]")
        return JSONResponse({"choices": [{"message": {"content": said}}]})


@pytest.fixture(scope="module")
def wide_house(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Iterator[House]:
    """A house of six tasks: fewer are no trial."""
    import transformers

    root = tmp_path_factory.mktemp("wide")
    with Registry.create(root / "registry.db") as registry:
        # Room for the longest answers that are asked for.
        config = transformers.LlamaConfig(**tiny.llama_sizes() | {"max_position_embeddings": 512})
        made = House(root, tiny.save(root / "tiny", config), tiny, registry)
        made.profile(tasks_each=2)
        yield made


@pytest.fixture
def house(place: str, tmp_path: Path, wide_house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("TRAITROUTE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TRAITROUTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(KEY, SampleKeys.new_key())
    with Registry.create(place) as registry:
        copy_registry(wide_house.registry, registry)
        yield House(tmp_path, wide_house.base, wide_house.tiny, registry)


@pytest.fixture
def site(house: House) -> Iterator[Site]:
    put_samples(house.registry)
    with open_site(house) as it:
        yield it


@pytest.fixture
def judge(house: House) -> Iterator[JudgeServer]:
    """It knows the tasks' targets, and holds that `blue` is right on the requests that recur."""
    stored = house.registry.latest_profile()
    assert stored is not None
    tasks = profiled_tasks(house.registry, stored.summary)
    engine = TransformersEngine(house.base, house.registry.weights, precision="float32")
    blue = house.registry.adapter("blue")
    asked = [EngineRequest(({"role": "user", "content": text},), blue, 256) for text in TEXTS]
    right = {result.text for result in engine.run(asked)} | {e.target for task in tasks for e in task.test_examples}
    engine.close()
    told = JudgeServer(frozenset(right))
    with serving(Starlette(routes=[Route("/v1/chat/completions", told.answer, methods=["POST"])])) as url:
        told.url = f"{url}/v1"
        yield told


def put_samples(registry: Registry) -> None:
    stored, keys = registry.latest_profile(), SampleKeys.from_environment()
    assert stored is not None and keys is not None
    profile = RoutingProfile.from_bytes(stored.data)
    known = {"kind": KIND, "profile_version": stored.version, "expires_at": datetime.now(UTC) + timedelta(hours=1)}
    samples = [
        Sample(**known, features=DemandWindow.pack([profile.features.row(text)]), text=keys.encrypt(text))
        for text in TEXTS
    ]
    assert registry.put_samples(samples, each=60, in_all=600) == COUNT


# What becomes of a killed worker's steps in SQLite, test_worker.py asks.
@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_worker_killed_while_it_compares_does_it_once_and_admits_nothing(site: Site, judge: JudgeServer) -> None:
    options = ("--compare", "judge", "--judge", "wise", "--judge-url", judge.url)
    registry = site.house.registry
    for heard in (90, 560):
        worker = site.start_worker(*options)
        site.wait(lambda heard=heard: len(site.notes.asked) >= heard, limit_s=900)
        site.kill(worker)
    assert registry.comparisons() == []
    for _ in range(2):
        site.start_worker(*options)
    site.wait(lambda: bool(registry.comparisons()), limit_s=900)
    [found] = registry.comparisons()
    assert (found.kind, found.requests, found.by) == (KIND, COUNT, "wise")
    assert found.worth_it, found
    assert found.adapters[found.gains.index(max(found.gains))] == "blue"
    # A kill costs the step under way at most, of four answers an example; of the judge's, those under way.
    asked = Counter(site.notes.asked)
    assert sum(asked.values()) - len(asked) <= 2 * 4 * COUNT
    assert len(judge.asked) - len(set(judge.asked)) <= 2 * 8
    # Both workers look again, and find nothing left to do.
    before = len(site.notes.asked), len(judge.asked)
    site.house.add("new", seed=7)
    site.await_state("new", AdapterState.READY)
    assert [model for model, _ in site.notes.asked[before[0] :] if model not in ("new", "tiny")] == []
    assert len(judge.asked) == before[1]
    # Nothing has joined, and nothing that is kept holds a text.
    stored = registry.latest_profile()
    assert stored is not None and stored.summary.recurring == ()
    kept = json.dumps([each.model_dump(mode="json", exclude={"features"}) for each in registry.comparisons()])
    assert not any(text in kept + site.logs() for text in TEXTS)


def test_a_worker_that_is_not_told_to_compares_nothing(site: Site) -> None:
    site.house.add("new", seed=7)
    site.start_worker()
    site.await_state("new", AdapterState.READY)
    assert {model for model, _ in site.notes.asked} == {"tiny", "new"}
    assert site.house.registry.comparisons() == []


def test_what_tells_nothing_is_kept_as_refused(site: Site) -> None:
    site.start_worker("--compare", "format")
    site.wait(lambda: bool(site.house.registry.comparisons()))
    [found] = site.house.registry.comparisons()
    assert found.by == "format" and not found.worth_it
    assert found.refused is not None and "verdicts were tried on 0 tasks" in found.refused
