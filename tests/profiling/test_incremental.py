"""A new adapter's row joins the profile: nothing else is measured or moved, and a killed run repeats nothing."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import (
    Adapter,
    AdapterState,
    FinishReason,
    InputError,
    Registry,
    RegistryError,
    SilentAdapterError,
)
from traitroute.profiling import TransferMatrix, measure
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.incremental import measure_row
from traitroute.profiling.profiled import Profiled
from traitroute.profiling.rows import GeneratorSource
from traitroute.profiling.task import Task
from traitroute.profiling.traits import TraitSpace
from traitroute.router import FitRequests, Router, RoutingProfile, fit_profile
from traitroute.serving.engines import EngineRequest, EngineResult

BASE = BaseModelFolder(name="tiny", path=Path("tiny"), digest="b" * 64)
SKILLS = {
    "1": {"mood": 0.9},
    "2": {"sums": 0.8},
    "3": {"mood": 0.2, "same": 0.9},
    "4": {"mood": 0.9},
    "5": {"sums": 0.5},
}
"""What share of a task's examples each adapter's weights get right; base and others none."""


@dataclass
class SkilledEngine:
    """Answers rightly on a share of each task's prompts, the same prompts for every adapter; counts what it is asked."""

    tasks: Sequence[Task]
    name: str = "skilled"
    dies_after: int | None = None
    asked: list[str | None] = field(default_factory=list)

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        return [self._answer(request) for request in requests]

    def close(self) -> None:
        pass

    def _answer(self, request: EngineRequest) -> EngineResult:
        who = request.adapter.weights_digest[0] if request.adapter else None
        self.asked.append(who)
        prompt = request.messages[-1]["content"]
        name, answer = next(
            (t.name, e.answer) for t in self.tasks for e in t.test_examples if e.prompt == prompt
        )
        luck = hashlib.sha256(prompt.encode()).digest()[0] / 256
        right = luck < SKILLS.get(who or "", {}).get(name, 0.0)
        return EngineResult(
            text=answer if right else "none of it",
            output_tokens=3,
            finish_reason=FinishReason.STOP,
            log_likelihoods=tuple(-1.0 - luck for _ in request.candidates),
            candidate_tokens=tuple(1 for _ in request.candidates),
        )


def task(name: str, generator: str, **changes: object) -> Task:
    rows = GeneratorSource(generator=generator, pool={"train": 8, "test": 40})
    settings = {"name": name, "rows": rows, "test": 40, "train": 8, "source": True} | changes
    return Task.model_validate(settings)


TASKS = [
    task("mood", "sentiment2", labels=("negative", "positive"), metric="label"),
    task("sums", "word_problems", metric="number"),
    task("same", "paraphrase", labels=("no", "yes"), metric="label"),
]
ROW = 120


def adapter(name: str, weights: str, source: str | None = None) -> Adapter:
    return Adapter(
        name=name,
        base_model="tiny",
        base_digest=BASE.digest,
        weights_digest=weights * 64,
        rank=2,
        target_modules=("q_proj",),
        source_task=source,
    )


@pytest.fixture
def engine() -> SkilledEngine:
    return SkilledEngine(TASKS)


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of three adapters, measured in full and fitted; a fourth is pending."""
    path, engine = tmp_path_factory.mktemp("profiled") / "registry.db", SkilledEngine(TASKS)
    known = [adapter("one", "1"), adapter("two", "2"), adapter("three", "3")]
    with Registry.create(path) as registry:
        for each in [*known, adapter("four", "4")]:
            registry.add_adapter(each)
        for t in TASKS:
            registry.put_task(t.name, t.digest, t.model_dump(mode="json"))
        cells = measure(engine, registry, BASE, known, TASKS)
        matrix = TransferMatrix.from_cells(cells)
        traits = TraitSpace(n_permutations=20).fit(matrix.gains)
        requests = FitRequests(
            [e.prompt for t in TASKS for e in t.test_examples],
            [t.name for t in TASKS for _ in t.test_examples],
            np.concatenate(matrix.example_gains),
        )
        scores = traits.transform(matrix.gains)
        routing = fit_profile(matrix.adapters, requests, scores, n_traits=traits.n_traits_)
        summary = {
            "suite": "tiny",
            "base_model": "tiny",
            "adapters": list(matrix.adapters),
            "tasks": list(matrix.tasks),
            "cells": [c.key for c in cells],
            "base": matrix.base.tolist(),
            "scores": matrix.scores.tolist(),
            "paired": matrix.paired,
            "loadings": traits.components_.tolist(),
            "trait_scores": scores.tolist(),
            "n_traits": traits.n_traits_,
            "scaling": "raw",
        }
        registry.put_profile(routing.to_bytes(), summary, ready=matrix.adapters)
    return path


@pytest.fixture
def registry(tmp_path: Path, profiled: Path) -> Iterator[Registry]:
    """A copy of it."""
    with Registry.open(shutil.copy(profiled, tmp_path / "registry.db")) as registry:
        yield registry


def test_a_row_on_anchors_places_the_adapter_and_opens_it(
    registry: Registry, engine: SkilledEngine
) -> None:
    found = measure_row(registry.adapter("four"), engine, registry, BASE, share=0.25, tolerance=0)
    assert set(engine.asked) == {"4"}
    assert len(engine.asked) == found.row.examples.sum() == 30
    assert found.row.gains[0] == pytest.approx(0.9, abs=0.15)
    assert np.abs(found.row.gains[1:]).max() < 0.1
    assert registry.adapter("four").state is AdapterState.READY
    assert Router.from_registry(registry).version == found.version == 2


def test_no_other_row_moves_and_other_requests_are_routed_as_before(
    registry: Registry, engine: SkilledEngine
) -> None:
    before = Router.from_registry(registry)
    old = before.profile
    measure_row(registry.adapter("four"), engine, registry, BASE)
    after = Router.from_registry(registry)
    assert np.array_equal(after.profile.trait_scores[:3], old.trait_scores)
    assert np.array_equal(after.profile.demand.coef_, old.demand.coef_)
    assert after.profile.caution == old.caution
    for each in (e for t in TASKS for e in t.test_examples):
        now = after.route(each.prompt).adapter
        assert now in ("four", before.route(each.prompt).adapter)


def test_a_killed_run_repeats_no_example(registry: Registry, engine: SkilledEngine) -> None:
    engine.dies_after = 11
    with pytest.raises(KeyboardInterrupt):
        measure_row(registry.adapter("four"), engine, registry, BASE, share=0.25, tolerance=0)
    assert registry.adapter("four").state is AdapterState.PENDING
    engine.dies_after = None
    measure_row(registry.adapter("four"), engine, registry, BASE, share=0.25, tolerance=0)
    assert len(engine.asked) == 30


def test_a_larger_share_goes_on_from_a_smaller_one(
    registry: Registry, engine: SkilledEngine
) -> None:
    first = measure_row(registry.adapter("four"), engine, registry, BASE, share=0.1, tolerance=0)
    more = measure_row(registry.adapter("four"), engine, registry, BASE, share=0.4, tolerance=0)
    assert len(engine.asked) == more.row.examples.sum() == 48
    assert more.row.errors.mean() < first.row.errors.mean()


def test_measuring_ends_early_where_the_row_is_sure(
    registry: Registry, engine: SkilledEngine
) -> None:
    found = measure_row(registry.adapter("four"), engine, registry, BASE, share=1.0, tolerance=0.2)
    assert found.row.errors.mean() <= 0.2
    assert len(engine.asked) < ROW / 2


def test_a_full_row_is_measured_whole_and_has_no_error(
    registry: Registry, engine: SkilledEngine
) -> None:
    measure_row(registry.adapter("four"), engine, registry, BASE)
    found = measure_row(registry.adapter("four"), engine, registry, BASE, full=True)
    profiled = Profiled.open(registry)
    assert found.row.whole
    assert profiled.whole == ("one", "two", "three", "four")
    assert profiled.estimated == {}
    exact = [profiled.outcomes("four", t).strict.mean() for t in profiled.tasks]
    assert profiled.summary["scores"][3] == pytest.approx(exact)


def test_an_estimated_row_is_never_taken_for_a_whole_one(
    registry: Registry, engine: SkilledEngine
) -> None:
    measure_row(registry.adapter("four"), engine, registry, BASE)
    profiled = Profiled.open(registry)
    assert profiled.whole == ("one", "two", "three")
    assert ("four", "mood") not in profiled.cells
    assert len(profiled.estimated["four"]["errors"]) == len(TASKS)
    assert profiled.summary["paired"]["examples"][3] == [0, 0, 0]


def test_a_replacement_takes_the_place_of_the_old_row(
    registry: Registry, engine: SkilledEngine
) -> None:
    new = registry.replace_adapter(adapter("two", "4"))
    measure_row(new, engine, registry, BASE, share=0.5)
    profile = RoutingProfile.from_bytes(Profiled.open(registry).stored.data)
    assert profile.adapters == ("one", "two", "three")
    assert registry.adapter("two").weights_digest == "4" * 64
    assert profile.trait_scores[1] == pytest.approx(profile.trait_scores[0], abs=0.2)
    assert Profiled.open(registry).whole == ("one", "three")


def test_two_rows_measured_at_the_same_time_both_join(
    registry: Registry, engine: SkilledEngine
) -> None:
    registry.add_adapter(adapter("five", "5"))

    def meanwhile(done: int, of: int) -> None:
        if registry.adapter("five").state is AdapterState.PENDING:
            measure_row(registry.adapter("five"), engine, registry, BASE)

    measure_row(registry.adapter("four"), engine, registry, BASE, on_examples=meanwhile)
    assert Profiled.open(registry).summary["adapters"][3:] == ["five", "four"]


def test_an_adapter_that_does_nothing_is_refused_and_its_cells_removed(
    registry: Registry, engine: SkilledEngine
) -> None:
    registry.add_adapter(adapter("idle", "9"))
    before = len(registry.cell_scores())
    with pytest.raises(SilentAdapterError, match="idle answered exactly as the base model"):
        measure_row(registry.adapter("idle"), engine, registry, BASE)
    assert len(registry.cell_scores()) == before
    assert registry.adapter("idle").state is AdapterState.PENDING


def test_another_engine_measures_base_once(registry: Registry, engine: SkilledEngine) -> None:
    engine.name = "another"
    measure_row(registry.adapter("four"), engine, registry, BASE)
    assert engine.asked.count(None) == ROW
    registry.add_adapter(adapter("five", "5"))
    measure_row(registry.adapter("five"), engine, registry, BASE)
    assert engine.asked.count(None) == ROW


def test_an_adapter_of_another_base_model_is_refused(
    registry: Registry, engine: SkilledEngine
) -> None:
    other = BaseModelFolder(name="large", path=Path("large"), digest="c" * 64)
    with pytest.raises(InputError, match="is for tiny, but the profile's adapters are for large"):
        measure_row(registry.adapter("four"), engine, registry, other)


def test_a_task_whose_data_changed_is_refused(registry: Registry, engine: SkilledEngine) -> None:
    registry.put_task("mood", "0" * 64, registry.tasks()["mood"])
    with pytest.raises(RegistryError, match="task mood gives other examples"):
        measure_row(registry.adapter("four"), engine, registry, BASE)


def test_training_rows_are_read_off_the_source_task(
    registry: Registry, engine: SkilledEngine
) -> None:
    registry.add_adapter(adapter("five", "5", source="sums"))
    measure_row(registry.adapter("five"), engine, registry, BASE)
    homes = RoutingProfile.from_bytes(Profiled.open(registry).stored.data).homes
    assert homes.centroids[3].any()
    assert not homes.centroids[0].any()
