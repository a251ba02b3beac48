"""Servers count what they route and keep features of some novel requests, never text."""

import asyncio
import shutil
from pathlib import Path

import pytest
from traitroute.adapters import Registry
from traitroute.router import Router
from traitroute.serving.constraints import Constraints
from traitroute.serving.middleware.choice import Chooser
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState
from traitroute.serving.traffic import DemandKeeper, watch
from traitroute.serving.traffic.watch import DemandWatch
from traitroute.serving.watcher import RegistryWatcher

STRANGE = "zxqv wibble frobnicate the glorp"


@pytest.fixture
def registry(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "registry.db"))


@pytest.fixture
def earlier(registry: Path) -> int:
    """How many windows the copied registry has already: servers of other tests keep theirs in it."""
    with Registry.open(registry) as opened:
        return len(opened.demand_windows())


@pytest.fixture
def router(registry: Path) -> Router:
    with Registry.open(registry, read_only=True) as opened:
        return Router.from_registry(opened)


def see(state: ServerState, router: Router) -> None:
    assert state.watch is not None
    state.watch(STRANGE, router.route(STRANGE), router.profile)


def test_novel_requests_are_counted_and_sampled(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SAMPLED", 3)
    seen = DemandWatch()
    known = "please simmer the onion soup with butter"
    for text in [known] * 4 + [f"{STRANGE} {i}" for i in range(10)]:
        seen.see(text, router.route(text), router.profile)
    (window,) = seen.take()
    assert (window.requests, window.novel) == (14, 10)
    assert window.rows().shape == (3, len(router.profile.centroids[0]))
    assert seen.take() == []


def test_windows_reach_the_registry_without_text(registry: Path, earlier: int) -> None:
    async def text(last: bool) -> str:
        return STRANGE

    async def serve() -> None:
        state = ServerState()
        following = RegistryWatcher(state, lambda: Registry.open(registry, read_only=True), lambda *_: None)
        await following.start()
        await Chooser(state).choose(text, Constraints(), state.snapshot)
        await following.stop()

    asyncio.run(serve())
    with Registry.open(registry) as opened:
        (window,) = opened.demand_windows()[earlier:]
    assert (window.requests, window.novel, window.profile_version) == (1, 1, 1)
    assert b"frobnicate" not in registry.read_bytes()


def test_what_was_seen_before_the_profile_changed_is_kept_too(registry: Path, router: Router, earlier: int) -> None:
    with Registry.open(registry) as opened:
        state = ServerState(snapshot=RegistrySnapshot(location=opened.location))
        keeper = DemandKeeper(state)
        for version in (1, 2):
            see(state, Router(router.profile, version=version))
        keeper.keep()
        assert [(w.requests, w.profile_version) for w in opened.demand_windows()[earlier:]] == [(1, 1), (1, 2)]


def test_a_variable_turns_watching_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITROUTE_WATCH", "0")
    state = ServerState()
    DemandKeeper(state)
    assert state.watch is None


def test_a_registry_that_cannot_be_written_is_said_once(
    registry: Path, router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    with Registry.open(registry) as opened:
        state = ServerState(snapshot=RegistrySnapshot(location=opened.location))
    registry.unlink()
    keeper = DemandKeeper(state)
    for _ in range(2):
        see(state, router)
        keeper.keep()
    assert len(caplog.records) == 1
