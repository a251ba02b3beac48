"""A server of a tiny random Llama whose three adapters have measured gains, each of which costs it another task."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from made_up_summary import made_up_summary, traits_of
from traitroute.adapters import Adapter, AdapterState, Cell, Registry
from traitroute.profiling.matrix.matrix import TransferMatrix
from traitroute.profiling.traits.names import name_traits
from traitroute.profiling.traits.space import TraitSpace
from traitroute.profiling.traits.stability import loading_stability
from traitroute.router import FitRequests, fit_profile

from ...made_up_outcomes import made_up_outcomes
from ...servers import serving
from ...simulated_outcomes import enter_canary, report_control_group

TOPICS = {"red": range(10, 16), "green": range(20, 26), "blue": range(30, 36)}
"""The words that each task's examples are made of; the adapter of its name helps it."""
KEY = "a key for the page"


@dataclass(frozen=True)
class Served:
    """A server that answers at `url`."""

    url: str

    def answer(self, model: str, text: str, max_tokens: int) -> httpx.Response:
        """What it answers to a chat message."""
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
        body |= {"max_tokens": max_tokens, "temperature": 0}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    """The folder of the base model `tiny` and of a registry with its adapters and a fitted profile."""
    for package in ("torch", "transformers", "peft", "uvicorn"):
        pytest.importorskip(package, reason="needs it: pip install 'traitroute[embedded]'")
    folder = tmp_path_factory.mktemp("page")
    base = tiny.save(folder / "tiny")
    with Registry.create(folder / "registry.db") as registry:
        for seed, name in enumerate(TOPICS):
            weights = tiny.save_adapter(base, folder / name, seed=seed, lora_alpha=8)
            registry.add_adapter(record(name, registry.weights.add(weights)))
        cells = measured()
        for cell in cells:
            registry.put_cell(cell)
        fit(registry, cells)
        report_outcomes(registry)
    return folder


def report_outcomes(registry: Registry) -> None:
    """Two days of conversations for `red`, half of them held back, and two in which `blue` is a canary that harms.

    `green` was one before.
    """
    begun, apart = datetime.now(UTC) - timedelta(days=2), timedelta(minutes=30)
    report_control_group(registry, "red", "red", 80, begun=begun, apart=apart)
    registry.set_canary("green", 0.1, why="entered")
    figures = {"estimate": {"gain": 0.05, "low": -0.01, "high": 0.11}, "conversations": 4321}
    registry.set_canary("green", 1.0, why="promoted", figures=figures)
    enter_canary(registry, "blue", "red", (0.2, 0.6), share=0.1, count=3000)


def record(name: str, files: Any) -> Adapter:
    """The record of an adapter of these weights, which may be served."""
    return Adapter(
        name=name,
        base_model="tiny",
        base_digest="0" * 64,
        weights_digest=files.digest,
        rank=files.rank,
        target_modules=files.target_modules,
        state=AdapterState.READY,
    )


def measured() -> list[Cell]:
    """Base has a third of all examples right; an adapter all of its task, none of the next, and the rest as base."""
    names = [*TOPICS]
    third = np.arange(36) % 3 == 0
    cells = [cell(None, task, third) for task in names]
    for i, adapter in enumerate(names):
        right = {adapter: np.ones(36, bool), names[(i + 1) % 3]: np.zeros(36, bool)}
        cells += [cell(adapter, task, right.get(task, third)) for task in names]
    return cells


def cell(adapter: str | None, task: str, right: Any) -> Cell:
    """A cell whose examples are `right` or not."""
    outcomes = made_up_outcomes(right)
    return Cell(key=f"{adapter} {task}", adapter=adapter, task=task, outcomes=outcomes)


def fit(registry: Registry, cells: list[Cell]) -> None:
    """Fit traits and a router to the cells, and store both."""
    matrix = TransferMatrix.from_cells(cells)
    traits = TraitSpace().fit(matrix.gains)
    noise = loading_stability(matrix.example_gains, components=traits.components_, n_bootstrap=50)
    names = name_traits(
        traits.components_,
        matrix.tasks,
        groups={task: "words" for task in matrix.tasks},
        supported=traits.supported_,
        stability=noise,
    )
    texts = [f"w{a} w{b} w{a}" for task in matrix.tasks for a in TOPICS[task] for b in TOPICS[task]]
    tasks = [task for task in matrix.tasks for _ in range(36)]
    scores = traits.transform(matrix.gains)
    # Every request gains what its task does, so that the router is sure of itself.
    requests = FitRequests(texts, tasks, np.repeat(matrix.gains.T, 36, axis=0))
    routing = fit_profile(matrix.adapters, requests, scores, n_traits=traits.n_traits_)
    summary = made_up_summary(
        matrix.adapters,
        matrix.tasks,
        base_model="tiny",
        cells=[cell.key for cell in cells],
        base=matrix.base,
        scores=matrix.scores,
        paired=matrix.paired,
        trait_scores=scores,
        traits=traits_of(traits, names=names, by_examples=noise),
    )
    registry.put_profile(routing.to_bytes(), summary)


@contextmanager
def running(house: Path, **options: Any) -> Iterator[Served]:
    """Serve the house from a thread of this process."""
    from traitroute.serving.embedded import EmbeddedOptions, open_app

    app = open_app(
        house / "tiny",
        house / "registry.db",
        name="tiny",
        options=EmbeddedOptions(**{"precision": "float32", **options}),
    )
    with serving(app) as url:
        yield Served(url)


@pytest.fixture(scope="session")
def server(house: Path) -> Iterator[Served]:
    """A server without keys."""
    with running(house) as served:
        yield served


@pytest.fixture(scope="session")
def locked(house: Path) -> Iterator[Served]:
    """A server that asks for `KEY`."""
    with running(house, api_key=KEY) as served:
        yield served


@pytest.fixture(scope="session")
def key() -> str:
    """The key of the server `locked`."""
    return KEY
