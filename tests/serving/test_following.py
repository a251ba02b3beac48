"""A server follows the file at its registry's path, whichever file that is."""

import asyncio
from pathlib import Path

import pytest
from traitroute.adapters import Adapter, AdapterState, Registry
from traitroute.serving.following import RegistryFollower
from traitroute.serving.routing import Routing


def registry_of(path: Path, *names: str) -> Path:
    with Registry.create(path) as registry:
        for i, name in enumerate(names):
            registry.add_adapter(
                Adapter(
                    name=name,
                    base_model="tiny",
                    base_digest="0" * 64,
                    weights_digest=f"{i}" * 64,
                    rank=4,
                    target_modules=("q_proj",),
                    state=AdapterState.PENDING,
                )
            )
    return path


def remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


@pytest.fixture
def routing() -> Routing:
    return Routing()


def follower(routing: Routing, path: Path) -> RegistryFollower:
    return RegistryFollower(routing, lambda: Registry.open(path, read_only=True), lambda *_: None)


def test_a_deleted_registry_takes_nothing_away(routing: Routing, tmp_path: Path) -> None:
    path = registry_of(tmp_path / "registry.db", "code")
    following = follower(routing, path)
    asyncio.run(following.refresh())
    remove(path)
    asyncio.run(following.refresh())
    assert routing.adapters == {"code"}


def test_a_restored_registry_is_followed(routing: Routing, tmp_path: Path) -> None:
    path = registry_of(tmp_path / "registry.db", "code")
    following = follower(routing, path)
    asyncio.run(following.refresh())
    remove(path)
    # Of the same revision as the deleted one, so that the number alone would not tell.
    registry_of(path, "cook")
    asyncio.run(following.refresh())
    assert routing.adapters == {"cook"}
    with Registry.open(path) as registry:
        registry.set_tags("cook", ["spicy"])
    asyncio.run(following.refresh())
    assert routing.tags == {"cook": frozenset({"spicy"})}
