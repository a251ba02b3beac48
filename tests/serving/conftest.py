"""A registry with three measured adapters, of which skills can be told: for the API, MCP and the page."""

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_summary import made_up_summary, traits_of
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from traitroute.adapters import Adapter, AdapterState, Cell, Registry
from traitroute.profiling.matrix.matrix import TransferMatrix
from traitroute.profiling.traits.space import TraitSpace
from traitroute.router import FitRequests, fit_profile
from traitroute.serving.gateway import GatewayOptions, gateway_app

from ..made_up_outcomes import made_up_outcomes

EXAMPLES = 40
WORDS = {
    "cooking": "simmer the onion soup with butter garlic thyme then bake bread in a hot oven",
    "garden": "plant tomato seeds in warm soil water roses prune hedge and compost the leaves",
    "space": "rocket orbit around mars needs fuel thrust telescope sees moon crater and comet",
    "law": "contract clause grants tenant notice before court hears appeal on lease and damages",
}
RIGHT = {
    None: {"cooking": 8, "garden": 8, "space": 8, "law": 30},
    "chef": {"cooking": 36, "garden": 30, "space": 2, "law": 20},
    "pilot": {"cooking": 2, "garden": 6, "space": 36, "law": 28},
    "idle": {"cooking": 8, "garden": 8, "space": 8, "law": 30},
}
"""How many of a task's examples base and each adapter get right: the first ones."""


def texts_of(task: str, count: int = EXAMPLES) -> list[str]:
    draw = random.Random(task)
    words = WORDS[task].split()
    return [f"please {' '.join(draw.choices(words, k=12))}" for _ in range(count)]


def measured(adapter: str | None, task: str) -> Cell:
    right = np.arange(EXAMPLES) < RIGHT[adapter][task]
    outcomes = made_up_outcomes(right, parse_failure=~right, log_likelihood=-1, predicted_label=1, output_digest=1)
    return Cell(f"{adapter} {task}", adapter, task, outcomes)


def adapter_of(name: str) -> Adapter:
    return Adapter(
        name=name,
        base_model="tiny",
        base_digest="0" * 64,
        weights_digest=sha256(name.encode()).hexdigest(),
        rank=4,
        target_modules=("q_proj",),
        state=AdapterState.READY,
        source_task="cooking" if name == "chef" else None,
        tags=("kitchen",) if name == "chef" else (),
        licence="apache-2.0" if name == "chef" else None,
    )


def fill(registry: Registry) -> None:
    cells = [measured(adapter, task) for adapter in RIGHT for task in WORDS]
    for cell in cells:
        registry.put_cell(cell)
    for task in WORDS:
        spec = {
            "train": 128,
            "metric": "label",
            "labels": ["soup", "bread"],
            "prompt": "{{ input }}",
        }
        registry.put_task(task, "0" * 64, spec)
    matrix = TransferMatrix.from_cells(cells)
    traits = TraitSpace(n_permutations=50).fit(matrix.gains)
    requests = FitRequests(
        [text for task in WORDS for text in texts_of(task)],
        [task for task in WORDS for _ in range(EXAMPLES)],
        np.concatenate(matrix.example_gains),
    )
    scores = traits.transform(matrix.gains)
    profile = fit_profile(matrix.adapters, requests, scores, n_traits=traits.n_traits_)
    for name in matrix.adapters:
        registry.add_adapter(adapter_of(name))
    summary = made_up_summary(
        matrix.adapters,
        matrix.tasks,
        base_model="tiny",
        cells=[cell.key for cell in cells],
        base=matrix.base,
        scores=matrix.scores,
        paired=matrix.paired,
        trait_scores=scores,
        traits=traits_of(traits, labels={1: "kitchen work"}),
    )
    registry.put_profile(profile.to_bytes(), summary)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("skills") / "registry.db"
    with Registry.create(path) as registry:
        fill(registry)
    return path


@pytest.fixture
def registry(filled: Path, tmp_path: Path) -> Iterator[Registry]:
    """A registry of this test's own."""
    shutil.copy(filled, tmp_path / "registry.db")
    with Registry.open(tmp_path / "registry.db") as opened:
        yield opened


@pytest.fixture
def postgresql(filled: Path, postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The same adapters and profile in a PostgreSQL database."""
    monkeypatch.setenv("TRAITROUTE_WEIGHTS", str(tmp_path))
    with (
        Registry.open(filled, read_only=True) as source,
        Registry.create(postgres.new_database()) as opened,
    ):
        for adapter in source.adapters():
            opened.add_adapter(adapter)
        for cell in source.cells():
            opened.put_cell(cell)
        profile = source.profile(1)
        opened.put_profile(profile.data, profile.summary)
        yield opened


@pytest.fixture
def text_of() -> Callable[[str], str]:
    """A request of a topic that was not fitted on."""
    return lambda task: texts_of(task, EXAMPLES + 1)[-1]


def _gateway(registry: Registry, key: str, origins: tuple[str, ...]) -> ASGIApp:
    options = GatewayOptions(upstreams=("http://127.0.0.1:9",), key=key, origins=origins)
    return gateway_app(options, lambda: Registry.open(registry.location, read_only=True))


def _embedded(registry: Registry, key: str, origins: tuple[str, ...]) -> ASGIApp:
    pytest.importorskip("torch")
    from traitroute.serving.embedded.app import embedded_app

    idle: Any = _IdleDecoder()
    return embedded_app(
        idle,
        idle,
        lambda: Registry.open(registry.location, read_only=True),
        names=["tiny"],
        context=64,
        queue=4,
        api_key=key,
        origins=origins,
    )


class _IdleDecoder:
    """Stands where a model would: nothing here generates."""

    alive = True
    max_loras = 8

    @property
    def mixed(self) -> "_IdleDecoder":
        return self

    @property
    def tokenizer(self) -> "_IdleDecoder":
        return self

    def get_vocab(self) -> dict[str, int]:
        return {"w": 0}

    def loads(self, digest: str) -> bool:
        return False

    def start(self) -> None:
        """Nothing starts."""

    def close(self) -> None:
        """Nothing ends."""

    def use_store(self, store: object) -> None:
        """Nothing is loaded."""


@pytest.fixture(params=[_gateway, _embedded], ids=["gateway", "embedded"])
def open_server(request: Any) -> Iterator[Callable[..., TestClient]]:
    """Open the gateway and the embedded server over a registry, with a key (empty: none) and web origins."""
    with ExitStack() as stack:
        yield lambda registry, key="", *origins: stack.enter_context(
            TestClient(request.param(registry, key, origins), raise_server_exceptions=False)
        )
