"""An empty registry on each database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from traitroute.adapters import Registry


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a registry may be made: a path, or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "registry.db")
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def registry(place: str) -> Iterator[Registry]:
    """An empty registry."""
    with Registry.create(place) as registry:
        yield registry
