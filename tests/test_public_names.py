"""Every package says truthfully, and in order, what it offers."""

import importlib

import pytest


@pytest.mark.parametrize("package", ["adapters", "router", "profiling", "serving"])
def test_listed_names_are_sorted_and_importable(package: str) -> None:
    try:
        module = importlib.import_module(f"traitroute.{package}")
        names = module.__all__
        missing = [name for name in names if not hasattr(module, name)]
    except ImportError as exc:
        if (exc.name or "").startswith("traitroute"):
            raise
        pytest.skip(f"an extra is not installed: {exc}")
    assert missing == []
    # Constants, then classes, then functions: the order that ruff keeps.
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
