"""A small fleet: adapters of known skills, measured by an engine that counts, and a profile fitted to three of them."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import Adapter, FinishReason, Registry
from traitroute.profiling import TransferMatrix, measure
from traitroute.profiling.base_model import BaseModelFolder
from traitroute.profiling.fit import fit
from traitroute.profiling.matrix.everyday import everyday_task
from traitroute.profiling.matrix.row import MeasuredRow, measure_row
from traitroute.profiling.tasks.sources import BuiltInSource
from traitroute.profiling.tasks.task import Task
from traitroute.serving.engines import EngineRequest, EngineResult
from traitroute.serving.engines.probe import TEXTS

BASE = BaseModelFolder(name="tiny", path=Path("tiny"), digest="b" * 64)
SKILLS = {
    "1": {"mood": 0.9},
    "2": {"sums": 0.8},
    "3": {"mood": 0.2, "same": 0.9},
    "4": {"mood": 0.9},
    "5": {"sums": 0.5},
    "6": {"sums": 1.0},
}
"""What share of a task's examples each adapter's weights get right; base and others none."""
EVERYDAY = {e.prompt: e.target for e in everyday_task().test_examples}
"""Everyday requests with a right answer."""


@dataclass
class SkilledEngine:
    """Answers rightly on a share of each task's prompts, the same for every adapter; counts what it is asked."""

    tasks: Sequence[Task]
    name: str = "skilled"
    dies_after: int | None = None
    asked: list[str | None] = field(default_factory=list)
    skills: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What weights can do beside SKILLS."""
    chatty: str = ""
    """First digits of weights that answer everyday requests as rightly as base does."""

    def run(self, requests: Sequence[EngineRequest]) -> list[EngineResult]:
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        return [self._answer(request) for request in requests]

    def close(self) -> None:
        pass

    def _answer(self, request: EngineRequest) -> EngineResult:
        who = request.adapter.weights_digest[0] if request.adapter else None
        prompt = request.messages[-1]["content"]
        if prompt in TEXTS:
            return _probed(request, who)
        if prompt in EVERYDAY:
            right = who is None or who in self.chatty
            text, scores = EVERYDAY[prompt] if right else "none of it", tuple(-1.0 for _ in request.candidates)
            return EngineResult(text, 3, FinishReason.STOP, scores, tuple(1 for _ in scores))
        self.asked.append(who)
        name, answer = next((t.name, e.target) for t in self.tasks for e in t.test_examples if e.prompt == prompt)
        luck = hashlib.sha256(prompt.encode()).digest()[0] / 256
        skill = {**SKILLS.get(who or "", {}), **self.skills.get(who or "", {})}
        right = luck < skill.get(name, 0.0)
        return EngineResult(
            text=answer if right else "none of it",
            output_tokens=3,
            finish_reason=FinishReason.STOP,
            log_likelihoods=tuple(-1.0 - luck for _ in request.candidates),
            candidate_tokens=tuple(1 for _ in request.candidates),
        )


def _probed(request: EngineRequest, who: str | None) -> EngineResult:
    """An answer to the probe: weights without any skill change nothing."""
    scores = tuple(-1.0 - (who in SKILLS) for _ in request.candidates)
    return EngineResult("Yes", 1, FinishReason.LENGTH, scores, tuple(1 for _ in scores))


def task(name: str, dataset: str, **changes: object) -> Task:
    rows = BuiltInSource(built_in="mini", dataset=dataset)
    settings = {"name": name, "rows": rows, "test": 40, "train": 8, "source": True} | changes
    return Task.model_validate(settings)


TASKS = [
    task("mood", "sentiment2", labels=("negative", "positive"), metric="label"),
    task("sums", "word_problems", metric="number"),
    task("same", "paraphrase", labels=("no", "yes"), metric="label"),
]


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
        fitted = fit(TransferMatrix.from_cells(cells), TASKS, [None] * len(known))
        weights = {a.name: a.weights_digest for a in known}
        keys = tuple(cell.key for cell in cells)
        summary = fitted.summary(None, suite="tiny", base_model="tiny", cells=keys, weights=weights)
        registry.put_profile(fitted.routing.to_bytes(), summary, ready=fitted.matrix.adapters)
    return path


@dataclass
class Fleet:
    """A registry, the engine that its adapters are measured on, and their base model."""

    registry: Registry
    engine: SkilledEngine
    base: BaseModelFolder = BASE
    tasks: Sequence[Task] = tuple(TASKS)

    def add(self, name: str, weights: str, source: str | None = None) -> Adapter:
        """Record an adapter as pending."""
        self.registry.add_adapter(adapter(name, weights, source))
        return self.registry.adapter(name)

    def replace(self, name: str, weights: str) -> Adapter:
        """Let other weights wait for an adapter's name."""
        return self.registry.replace_adapter(adapter(name, weights))

    def measure(self, who: str | Adapter, **settings: Any) -> MeasuredRow:
        """Measure an adapter's row and admit it."""
        found = self.registry.adapter(who) if isinstance(who, str) else who
        return measure_row(found, self.engine, self.registry, self.base, **settings)


@pytest.fixture
def fleet(tmp_path: Path, profiled: Path) -> Iterator[Fleet]:
    """A copy of the profiled registry, with nothing asked of its engine yet."""
    with Registry.open(shutil.copy(profiled, tmp_path / "registry.db")) as registry:
        yield Fleet(registry, SkilledEngine(TASKS))
