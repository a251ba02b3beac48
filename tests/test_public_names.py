"""Every package says truthfully, and in order, what it offers."""

import importlib

import pytest
import traitroute


def test_the_api_offers_its_names_and_loads_them_when_they_are_used() -> None:
    assert set(traitroute.__all__) <= set(dir(traitroute))
    assert all(callable(getattr(traitroute, name)) for name in traitroute.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Rooter'"):
        traitroute.Rooter  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


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
