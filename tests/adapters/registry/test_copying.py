"""A registry moves from a file to a database and back with all it holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_summary import made_up_summary
from traitroute.adapters import (
    Adapter,
    AdapterState,
    Cell,
    Feedback,
    Registry,
    RegistryError,
    WeightsError,
)
from traitroute.adapters.registry.registry import copy_registry

from ...made_up_outcomes import made_up_outcomes


@pytest.fixture
def full(tmp_path: Path, make_adapter: Any) -> Registry:
    """A registry in a file with one of everything."""
    registry = Registry.create(tmp_path / "full.db")
    for name, fill in (("math", 0.5), ("next", 0.25)):
        files = registry.weights.add(make_adapter(name, fill=fill))
        adapter = Adapter(
            name="math",
            base_model="tiny",
            base_digest="f" * 64,
            weights_digest=files.digest,
            rank=files.rank,
            target_modules=files.target_modules,
            tags=("sums",),
        )
        (registry.replace_adapter if name == "next" else registry.add_adapter)(adapter)
    registry.set_state("math", AdapterState.READY)
    registry.put_task("imdb", "1" * 64, {"labels": ["nö", "yes"]})
    registry.put_cell(Cell("k", "math", "imdb", made_up_outcomes(np.zeros(3))))
    registry.put_profile(b"\x00\xff", made_up_summary(["math"], ["imdb"]))
    registry.put_feedback(Feedback(token="t", adapter="math", predicted_gain=0.1))
    registry.set_canary("math", 0.1, why="entered")
    return registry


def test_a_copy_holds_what_the_registry_holds(full: Registry, place: str, tmp_path: Path) -> None:
    parts: dict[str, int] = {}
    with Registry.create(place, weights=tmp_path / "shared") as target:
        before = target.revision()
        copy_registry(full, target, on_part=parts.__setitem__)
        one = ("tasks", "cells", "profiles", "adapters", "replacements", "feedback", "canary_steps")
        assert parts.items() >= {"weights": 2, **dict.fromkeys(one, 1)}.items()
        assert target.adapters() == full.adapters()
        assert target.replacements() == full.replacements()
        assert target.profile(1) == full.profile(1)
        assert target.tasks() == full.tasks()
        assert target.cells()[0].outcomes.to_bytes() == full.cells()[0].outcomes.to_bytes()
        assert target.find_feedback("t") == full.find_feedback("t")
        assert target.reporter(b"a key") == full.reporter(b"a key")
        target.weights.verify(target.adapter("math").weights_digest)
        assert target.revision() > before
        # Steps are counted on from those copied.
        target.set_canary("math", 0.2)
        assert [step.share for step in target.canary_steps("math")] == [0.1, 0.2]


def test_nothing_is_copied_over_something(full: Registry, registry: Registry) -> None:
    registry.put_task("mine", "1" * 64, {})
    with pytest.raises(RegistryError, match="holds tasks already"):
        copy_registry(full, registry)
    assert list(registry.tasks()) == ["mine"]


def test_a_registry_without_its_weights_is_not_copied(full: Registry, place: str, tmp_path: Path) -> None:
    lost = full.weights.path(full.adapter("math").weights_digest)
    lost.rename(tmp_path / "elsewhere")
    with Registry.create(place, weights=tmp_path / "shared") as target:
        with pytest.raises(WeightsError, match="no weights"):
            copy_registry(full, target)
        assert target.adapters() == []
