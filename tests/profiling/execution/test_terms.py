"""A machine that would make something else than the others of a run is refused, with the reason and the cure."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from traitroute.adapters import Location
from traitroute.profiling.base_model import open_base_model
from traitroute.profiling.execution import terms as module
from traitroute.profiling.execution.executor import UnfitMachineError
from traitroute.profiling.execution.terms import Terms, machine_name
from traitroute.serving.engines.local_model import VARIABLE, fastest_precision

from .work import write_base

pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
pytestmark = pytest.mark.slow


@pytest.fixture
def terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terms]:
    """Those of a run on this machine, in float32."""
    base = write_base(tmp_path / "base", fill=1.0)
    (tmp_path / "t.weights").mkdir()
    forget(monkeypatch, "float32")
    place, weights = Location(path=tmp_path / "t.db"), tmp_path / "t.weights"
    yield Terms(open_base_model(str(base)), "float32", place, weights, "me", machine_name())
    forget(monkeypatch, "float32")


def forget(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """As a process begins that computes in this precision."""
    monkeypatch.setenv(VARIABLE, precision)
    fastest_precision.cache_clear()
    module._base_here.cache_clear()


def test_a_machine_like_that_of_the_run_is_taken(terms: Terms) -> None:
    assert terms.here() == terms


def test_one_of_another_precision_is_refused(terms: Terms, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "bfloat16")
    with pytest.raises(UnfitMachineError, match=r"in bfloat16 and this run in float32.*set TRAITROUTE_PRECISION=float"):
        terms.here()


def test_one_with_other_weights_of_the_base_model_is_refused(terms: Terms) -> None:
    write_base(terms.base.path, fill=2.0)
    with pytest.raises(UnfitMachineError, match=f"{terms.base.digest[:12]} in this run: it is another model"):
        terms.here()


def test_one_without_the_base_model_is_refused(terms: Terms) -> None:
    (terms.base.path / "model.safetensors").unlink()
    with pytest.raises(UnfitMachineError, match=r"it has no base model: .* is not a base model"):
        terms.here()


def test_another_machine_cannot_use_a_registry_in_a_file(terms: Terms) -> None:
    with pytest.raises(UnfitMachineError, match=r"the registry is a file of laptop: .*--registry postgresql"):
        replace(terms, machine="laptop").here()


def test_one_that_does_not_see_the_weights_is_refused(terms: Terms) -> None:
    terms.weights.rmdir()
    with pytest.raises(UnfitMachineError, match=r"it has no weight store .*t\.weights: mount the folder"):
        terms.here()
    terms.weights.mkdir()
    with pytest.raises(UnfitMachineError, match="it does not see the run's weight store"):
        terms.check_weights("a" * 64)
