"""A recorded profile keeps its traits' names and evidence, and takes over the labels of the last one."""

from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import Adapter, Registry
from traitroute.profiling import Suite, TraitSpace, TransferMatrix
from traitroute.profiling.fit import Fit
from traitroute.profiling.given import GivenAdapters
from traitroute.profiling.profile import _record
from traitroute.router import FitRequests, fit_profile

TASKS = {
    "imdb": {"metric": "label", "labels": ["bad", "good"]},
    "paws": {"metric": "label", "labels": ["no", "yes"]},
    "goat": {"metric": "number"},
    "gsm8k": {"metric": "number"},
    "code": {"metric": "text"},
}
ADAPTERS = tuple("abcdef")


def suite() -> Suite:
    rows = {"built_in": "mini", "dataset": "structured"}
    tasks = [{"name": n, "rows": rows, "source": n != "code", **t} for n, t in TASKS.items()]
    return Suite.model_validate({"name": "small", "tasks": tasks})


def transfer_matrix(seed: int) -> TransferMatrix:
    """Half of the adapters raise classification and lower math, the other half do the reverse."""
    random = np.random.default_rng(seed)
    gains = np.outer([1, 1, 1, -1, -1, -1], [1, 1, -1, -1, 0])
    examples = [np.sign(random.normal(task, 1.2, size=(60, 6)).round()) for task in gains.T.astype(float)]
    scores = 0.5 + np.stack([e.mean(axis=0) for e in examples], axis=1)
    return TransferMatrix(ADAPTERS, tuple(TASKS), np.full(5, 0.5), scores, tuple(examples))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry.create(tmp_path / "registry.db")
    for digit, name in enumerate(ADAPTERS):
        fields = {"base_model": "tiny", "base_digest": "0" * 64, "rank": 4, "name": name}
        digest = {"weights_digest": str(digit) * 64, "target_modules": ("q_proj",)}
        registry.add_adapter(Adapter.model_validate(fields | digest))
    return registry


def record(registry: Registry, *, seed: int) -> int:
    matrix = transfer_matrix(seed)
    traits = TraitSpace(n_permutations=100).fit(matrix.gains)
    texts = [f"{task} question {i}" for task in TASKS for i in range(60)]
    tasks = [task for task in TASKS for _ in range(60)]
    requests = FitRequests(texts, tasks, np.concatenate(matrix.example_gains))
    scores = traits.transform(matrix.gains)
    routing = fit_profile(ADAPTERS, requests, scores, n_traits=traits.n_traits_)
    return _record(suite(), registry, [], {}, Fit(suite().tasks, matrix, traits, routing), GivenAdapters())


@pytest.mark.slow
def test_names_evidence_and_labels_are_kept(registry: Registry) -> None:
    with registry:
        first = record(registry, seed=0)
        registry.set_trait_label(first, 1, "chooses, does not reckon")
        second = registry.profile(record(registry, seed=1)).summary
    traits = second.traits
    first_trait, *others = traits.names
    sides = {"classification (2 labels)", "math"}
    assert {s.rsplit(" ", 1)[0] for s in first_trait.name.split(", ")} == sides
    assert all(other.name.startswith("unsupported: ") for other in others)
    [(index, label)] = traits.labels.items()
    assert (index, label.removesuffix(" (reversed)")) == (1, "chooses, does not reckon")
    assert traits.scaling == "raw"
    assert traits.p_values[0] < 0.05 < min(traits.p_values[1:])
    assert traits.by_examples.median[0] > 0.95
    assert len(traits.null_mean) == len(traits.loadings)
