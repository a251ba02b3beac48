"""A trained adapter's folder appears whole; of several that train the same one the first counts."""

import json
from pathlib import Path

import pytest
from traitroute.adapters import InputError
from traitroute.profiling.training import RECORD, _cleared, _finished, _kept
from traitroute.serving.engines.local_model import VARIABLE, fastest_precision

pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
pytestmark = pytest.mark.slow


def write(folder: Path, key: str, **more: object) -> Path:
    folder.mkdir(parents=True)
    record = {"key": key, "seconds": 1.0, "tokens": 9, "loss": 0.5, **more}
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def loss(folder: Path, key: str = "k") -> float | None:
    found = _finished("a", folder, key)
    return found and found.loss


def test_the_first_of_two_that_trained_the_same_counts(tmp_path: Path) -> None:
    assert _kept("a", write(tmp_path / "one" / "a", "k", loss=0.1), tmp_path / "a", "k") is None
    first = _kept("a", write(tmp_path / "two" / "a", "k", loss=0.2), tmp_path / "a", "k")
    assert first is not None and first.loss == 0.1 == loss(tmp_path / "a")


def test_a_late_one_of_other_settings_takes_nobodys_place(tmp_path: Path) -> None:
    write(tmp_path / "a", "new")
    with pytest.raises(InputError, match=r"was written by another run meanwhile.*--runs"):
        _kept("a", write(tmp_path / "late" / "a", "old"), tmp_path / "a", "old")
    assert loss(tmp_path / "a", "new") == 0.5


def test_what_earlier_settings_left_is_removed_before_training(tmp_path: Path) -> None:
    write(tmp_path / "a", "old")
    assert _cleared("a", tmp_path / "a", "new") is None
    assert list(tmp_path.iterdir()) == []


def test_what_another_has_just_finished_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "a", "k", loss=0.3)
    found = _cleared("a", tmp_path / "a", "k")
    assert found is not None and found.loss == 0.3 == loss(tmp_path / "a")


def test_an_adapter_of_another_precision_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", "k", precision="float32")
    write(tmp_path / "older", "k")
    for precision, found in (("float32", 0.5), ("bfloat16", None)):
        fastest_precision.cache_clear()
        monkeypatch.setenv(VARIABLE, precision)
        assert loss(tmp_path / "a") == found
        assert loss(tmp_path / "older") == 0.5
    fastest_precision.cache_clear()
