"""The floating-point type is chosen once a machine, and never changes its mind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from traitroute.adapters import InputError
from traitroute.serving.engines import local_model
from traitroute.serving.engines.local_model import VARIABLE, fastest_precision

torch = pytest.importorskip("torch", reason="needs torch: pip install 'traitroute[profile]'")
on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU always takes bfloat16")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRAITROUTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    fastest_precision.cache_clear()
    yield
    fastest_precision.cache_clear()


@on_cpu
def test_what_was_measured_first_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fastest_precision()
    fastest_precision.cache_clear()
    other = "float32" if first == "bfloat16" else "bfloat16"
    monkeypatch.setattr(local_model, "_measured", lambda: other)
    assert fastest_precision() == first


@on_cpu
def test_a_damaged_note_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastest_precision()
    (note,) = (tmp_path / "cache").iterdir()
    note.write_text("float")
    fastest_precision.cache_clear()
    monkeypatch.setattr(local_model, "_measured", lambda: "float32")
    assert fastest_precision() == "float32"


def test_the_variable_overrules_and_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "float32")
    assert fastest_precision() == "float32"
    fastest_precision.cache_clear()
    monkeypatch.setenv(VARIABLE, "float16")
    with pytest.raises(InputError, match="is bfloat16 or float32, not 'float16'"):
        fastest_precision()
