"""A running embedded server over a tiny random Llama in float32, with random adapters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.router import FitRequests, fit_profile

from ...servers import serving

torch = pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[embedded]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'traitroute[embedded]'")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft", reason="needs PEFT: pip install 'traitroute[embedded]'")

TOPICS = {"red": range(10, 16), "green": range(20, 26), "blue": range(30, 36)}
"""The words that each adapter's requests are made of."""


def fit_words(registry: Registry) -> None:
    """Put a profile into the registry in which each adapter helps requests of its own words."""
    names = list(TOPICS)
    texts = [f"w{a} w{b} w{a}" for topic in TOPICS.values() for a in topic for b in topic]
    tasks = [name for name in names for _ in range(36)]
    gains = np.array([[0.9 if n == task else -0.3 for n in names] for task in tasks])
    by_task = np.where(np.eye(len(names)) > 0, 0.9, -0.3)
    u, s, _ = np.linalg.svd(by_task - by_task.mean(axis=0))
    fitted = fit_profile(names, FitRequests(texts, tasks, gains), (u * s)[:, :2], n_traits=2)
    registry.put_profile(fitted.to_bytes(), made_up_summary())


@dataclass
class House:
    """A base model, its registry, and what each adapter's weights are."""

    base: Path
    registry: Registry
    tiny: Any
    folders: dict[str, Path] = field(default_factory=dict)

    def put(self, name: str, *, seed: int, **lora: Any) -> Adapter:
        """Give `name` new random weights, at once."""
        adapter = self._make(name, seed, **lora)
        self.registry.add_adapter(adapter, replace=True)
        return adapter

    def replace(self, name: str, *, seed: int) -> Adapter:
        """Let new random weights wait to replace those of `name`."""
        return self.registry.replace_adapter(self._make(name, seed))

    def put_edited(self, name: str, *, seed: int, edit: Callable[[Path], None]) -> Adapter:
        """Give `name` random weights whose folder somebody edited."""
        adapter = self._make(name, seed, edit=edit)
        self.registry.add_adapter(adapter)
        return adapter

    def _make(self, name: str, seed: int, edit: Callable[[Path], None] = lambda folder: None, **lora: Any) -> Adapter:
        folder = self.base.with_name(f"{name}-{seed}")
        self.tiny.save_adapter(self.base, folder, seed=seed, **{"lora_alpha": 8, **lora})
        edit(folder)
        self.folders[name] = folder
        files = self.registry.weights.add(folder)
        return Adapter(
            name=name,
            base_model="tiny",
            base_digest="0" * 64,
            weights_digest=files.digest,
            rank=files.rank,
            target_modules=files.target_modules,
            state=AdapterState.READY,
        )

    def put_profile(self) -> None:
        """Fit a real profile in which each adapter helps requests of its own words."""
        fit_words(self.registry)

    def alone(self, name: str | None, prompt: str, max_tokens: int) -> str:
        """What the adapter by itself answers through plain `generate`."""
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(self.base)
        if name is not None:
            model = peft.PeftModel.from_pretrained(model, str(self.folders[name]))
        answer = self.tiny.plain_answer(model.eval(), self.tiny.numbers(prompt), max_tokens)
        return " ".join(f"w{token}" for token in answer)


@dataclass(frozen=True)
class Running:
    """A server that answers at `url`."""

    url: str
    decoder: Any

    def client(self) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.url, timeout=60)


Serve = Callable[..., Any]


def make_house(folder: Path, tiny: Any) -> House:
    """A house with three adapters of the words' topics."""
    house = House(tiny.save(folder / "tiny"), Registry.create(folder / "registry.db"), tiny)
    for seed, name in enumerate(TOPICS):
        house.put(name, seed=seed)
    return house


@pytest.fixture(scope="session")
def shared_house(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> House:
    """A house that tests leave as it is."""
    house = make_house(tmp_path_factory.mktemp("house"), tiny)
    house.put_profile()
    return house


@pytest.fixture
def house(tmp_path: Path, tiny: Any) -> House:
    """A house of the test's own."""
    return make_house(tmp_path, tiny)


@contextmanager
def running(house: House, *, base_digest: str | None = None, **options: Any) -> Iterator[Running]:
    """Serve the house from a thread of this process."""
    from traitroute.serving.embedded import EmbeddedOptions, open_app

    app = open_app(
        house.base,
        house.registry.path,
        name="tiny",
        base_digest=base_digest,
        options=EmbeddedOptions(**{"precision": "float32", **options}),
    )
    with serving(app) as url:
        yield Running(url, app.state.decoder)


@pytest.fixture(scope="session")
def put_profile() -> Callable[[Registry], None]:
    """Fit a profile of the topics' words."""
    return fit_words


@pytest.fixture
def serve() -> Serve:
    """Serve a house, as a context."""
    return running


@pytest.fixture(scope="session")
def server(shared_house: House) -> Iterator[Running]:
    """A server of the house that tests leave as it is."""
    with running(shared_house) as it:
        yield it


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    """A client of that server."""
    with server.client() as it:
        yield it
