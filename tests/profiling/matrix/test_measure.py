"""Cells are measured once, the base model first, and an adapter that does nothing is refused."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import Adapter, Cell, FinishReason, Registry, SilentAdapterError
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.matrix.measure import cell_key, measure
from traitroute.profiling.tasks.sources import BuiltInSource
from traitroute.profiling.tasks.task import Task
from traitroute.serving.engines import EngineRequest, EngineResult
from traitroute.serving.engines.probe import TEXTS, EngineProbe

BASE = BaseModelFolder(name="tiny", path=Path("tiny"), digest="b" * 64)


@dataclass
class HashEngine:
    """Answers by a hash of weights and prompt: deterministic, and unlike for every adapter."""

    name: str = "hash"
    breaks_at: int | None = None
    deaf: bool = False
    calls: list[tuple[str | None, int]] = field(default_factory=list)

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        adapter = requests[0].adapter
        if requests[0].messages[-1]["content"] in TEXTS:
            return [self._answer(r) for r in requests]
        if len(self.calls) == self.breaks_at:
            raise KeyboardInterrupt
        self.calls.append((adapter.name if adapter else None, len(requests)))
        return [self._answer(r) for r in requests]

    def close(self) -> None:
        pass

    def _answer(self, request: EngineRequest) -> EngineResult:
        weights = request.adapter.weights_digest if request.adapter and not self.deaf else ""
        seed = hashlib.sha256((weights + request.messages[-1]["content"]).encode()).digest()
        return EngineResult(
            text=request.candidates[1 + seed[0] % 2] if len(request.candidates) > 1 else "#### 7",
            output_tokens=3,
            finish_reason=FinishReason.STOP,
            log_likelihoods=tuple(-float(b) for b in seed[: len(request.candidates)]),
            candidate_tokens=tuple(len(c.split()) for c in request.candidates),
        )


def task(name: str, dataset: str = "sentiment2", **changes: object) -> Task:
    settings = {"labels": ("negative", "positive"), "metric": "label", "test": 6} | changes
    rows = BuiltInSource(built_in="mini", dataset=dataset)
    return Task.model_validate({"name": name, "rows": rows, **settings})


def adapter(name: str, weights: str) -> Adapter:
    return Adapter(
        name=name,
        base_model="tiny",
        base_digest=BASE.digest,
        weights_digest=weights * 64,
        rank=2,
        target_modules=("q_proj",),
    )


TASKS = [
    task("mood"),
    task("sums", "word_problems", labels=(), metric="number"),
    task("few", test=3),
]
ADAPTERS = [adapter("one", "1"), adapter("two", "2")]
ORDER = [(a, t.name) for a in (None, "one", "two") for t in TASKS]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.create(tmp_path / "registry.db") as registry:
        yield registry


def names(cells: Sequence[Cell]) -> list[tuple[str | None, str]]:
    return [(c.adapter, c.task) for c in cells]


def test_base_row_comes_first_and_every_cell_is_there(registry: Registry) -> None:
    engine, seen = HashEngine(), []
    cells = measure(engine, registry, BASE, ADAPTERS, TASKS, on_cell=seen.append)
    assert names(cells) == names(seen) == ORDER
    assert engine.calls == [(a, t.test) for a in (None, "one", "two") for t in TASKS]
    assert {c.key for c in registry.cells()} == {c.key for c in cells}


def test_finished_cells_are_not_measured_again(registry: Registry) -> None:
    first = measure(HashEngine(), registry, BASE, ADAPTERS[:1], TASKS)
    engine = HashEngine()
    cells = measure(engine, registry, BASE, ADAPTERS, TASKS)
    assert engine.calls == [("two", t.test) for t in TASKS]
    assert [c.outcomes.to_bytes() for c in cells[:6]] == [c.outcomes.to_bytes() for c in first]


def test_interrupted_run_goes_on_where_it_stopped(registry: Registry) -> None:
    broken, whole = HashEngine(breaks_at=5), HashEngine()
    with pytest.raises(KeyboardInterrupt):
        measure(broken, registry, BASE, ADAPTERS, TASKS)
    cells = measure(whole, registry, BASE, ADAPTERS, TASKS)
    assert len(broken.calls) == 5
    assert broken.calls + whole.calls == [(a, t.test) for a in (None, "one", "two") for t in TASKS]
    assert names(cells) == ORDER


def test_weights_under_a_new_name_are_not_measured_again_but_named_anew(registry: Registry) -> None:
    measure(HashEngine(), registry, BASE, ADAPTERS, TASKS)
    engine = HashEngine()
    cells = measure(engine, registry, BASE, [adapter("renamed", "1"), ADAPTERS[1]], TASKS)
    assert engine.calls == []
    assert [c.adapter for c in cells[3:6]] == ["renamed"] * 3


def test_adapter_that_changes_nothing_is_refused(registry: Registry) -> None:
    with pytest.raises(SilentAdapterError, match="adapter one answered exactly as the base model"):
        measure(HashEngine(deaf=True), registry, BASE, ADAPTERS, TASKS)
    assert set(registry.cell_keys().values()) == {None}


@dataclass
class DriftingEngine(HashEngine):
    """Adapters change no likelihood but by `drift` nats a token, on the probe or on the rows, and every answer."""

    on_probe: float = 0.0
    on_rows: float = 0.0

    def _answer(self, request: EngineRequest) -> EngineResult:
        drift = self.on_probe if request.messages[-1]["content"] in TEXTS else self.on_rows
        plain = HashEngine()._answer(replace(request, adapter=None))
        if request.adapter is None:
            return plain
        moved = tuple(
            value + drift * max(n, 1) for value, n in zip(plain.log_likelihoods, plain.candidate_tokens, strict=True)
        )
        return replace(plain, text="another answer", log_likelihoods=moved)


def test_an_adapter_whose_answers_differ_by_rounding_alone_is_refused(registry: Registry) -> None:
    noisy = DriftingEngine(on_probe=1e-5, on_rows=1e-5)
    with pytest.raises(
        SilentAdapterError, match=r"adapter one changes no more than noise does: 1e-05 nats on the probe"
    ):
        measure(noisy, registry, BASE, ADAPTERS, TASKS)
    assert {cell.adapter for cell in registry.cells()} == {None}


def test_an_adapter_that_the_probe_does_not_see_is_kept_for_what_it_does_on_the_rows(registry: Registry) -> None:
    registry.add_adapter(ADAPTERS[0])
    measure(DriftingEngine(on_rows=0.5), registry, BASE, ADAPTERS[:1], TASKS)
    kept = registry.adapter("one")
    assert (kept.effect, kept.noise) == (0.0, 0.0)


def test_the_effect_on_the_probe_is_recorded_once(registry: Registry) -> None:
    registry.add_adapter(ADAPTERS[0])
    measure(DriftingEngine(on_probe=2.0, on_rows=2.0), registry, BASE, ADAPTERS[:1], TASKS)
    kept = registry.adapter("one")
    assert (kept.effect, kept.noise) == (2.0, 0.0)
    revision = registry.revision()
    measure(DriftingEngine(), registry, BASE, [kept], TASKS)
    assert registry.revision() == revision


def test_an_engine_without_likelihoods_leaves_the_effect_open(registry: Registry) -> None:
    registry.add_adapter(ADAPTERS[0])
    measure(DriftingEngine(on_probe=math.nan, on_rows=math.nan), registry, BASE, ADAPTERS[:1], TASKS)
    assert registry.adapter("one").effect is None


def test_label_probabilities_are_a_distribution(registry: Registry) -> None:
    mood, sums, _ = measure(HashEngine(), registry, BASE, [], TASKS)
    probabilities = mood.outcomes.label_probabilities
    assert probabilities.shape == (6, 2)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
    assert sums.outcomes.label_probabilities.shape == (6, 0)


def test_outcomes_survive_the_registry(registry: Registry) -> None:
    [cell] = measure(HashEngine(), registry, BASE, [], TASKS[:1])
    kept = registry.find_cell(cell.key)
    assert kept is not None
    assert kept.outcomes.to_bytes() == cell.outcomes.to_bytes()


def test_cell_key_follows_base_weights_task_and_engine() -> None:
    one, two = ADAPTERS
    keys = [
        cell_key("b", None, "t", "e"),
        cell_key("b", one, "t", "e"),
        cell_key("b", two, "t", "e"),
        cell_key("c", one, "t", "e"),
        cell_key("b", one, "u", "e"),
        cell_key("b", one, "t", "f"),
    ]
    assert len(set(keys)) == len(keys)
    assert cell_key("b", adapter("renamed", "1"), "t", "e") == keys[1]


class AnswersOnly(HashEngine):
    """Gives no likelihoods."""

    asked = 0

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        self.asked += len(requests)
        return [replace(r, log_likelihoods=(math.nan,) * len(r.log_likelihoods)) for r in super().run(requests)]


def test_an_engine_without_likelihoods_is_asked_for_its_base_once() -> None:
    engine = AnswersOnly()
    probe = EngineProbe(engine)
    assert [probe.effect(each) for each in ADAPTERS] == [None, None]
    assert engine.asked == len(TEXTS)
