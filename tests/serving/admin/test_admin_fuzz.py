"""Adapters of strangers by the hundred over HTTP: each is added, or refused as a fault of its own, and soon."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings

from ...adapters.weights.test_adapter_fuzz import Lora, spoilt


@pytest.fixture
def office_with_base(office: Any, tiny: Any, tmp_path: Path, monkeypatch: Any) -> Any:
    """An office on whose machine the base model's files are."""
    pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[embedded]'")
    monkeypatch.setenv("TRAITROUTE_CACHE", str(tmp_path / "cache"))
    tiny.save(tmp_path / "cache" / "tiny")
    office.allowed.mkdir()
    return office


@pytest.mark.slow
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spoilt())
def test_whatever_is_added_nothing_goes_wrong_but_the_adapter(office_with_base: Any, lora: Lora) -> None:
    office = office_with_base
    folder = Path(tempfile.mkdtemp(dir=office.allowed))
    lora.write(folder)
    kept, since = office.kept(), time.process_time()
    answer = office.ask("POST", "", {"name": "odd", "uri": str(folder)})
    event(str(answer.status_code))
    if answer.status_code == 201:
        office.ask("DELETE", "/odd")
    else:
        assert answer.status_code == 400, answer.text
        assert office.kept() == kept
        assert answer.json()["error"]["message"].isprintable()
    assert time.process_time() - since < 1
    shutil.rmtree(folder)
