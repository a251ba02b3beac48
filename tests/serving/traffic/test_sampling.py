"""Texts that recur are kept, encrypted, where the operator gives a key; and nowhere in clear."""

import asyncio
import logging
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import InputError, Registry, Sample
from traitroute.router import Router
from traitroute.serving.constraints import Constraints
from traitroute.serving.http.tenants import Tenant
from traitroute.serving.middleware.choice import Chooser
from traitroute.serving.snapshot import RegistrySnapshot
from traitroute.serving.state import ServerState
from traitroute.serving.traffic import DemandKeeper, sampling
from traitroute.serving.traffic.sampling import HOURS, KEY, SHARE, SampleKeys, Sampler, recurring

STRANGE = "zxqv wibble frobnicate glorp quux blarg snork fnord"
OTHER = "tralala dumdidum hoppsassa fiderallala juchhe trallali"


def texts(words: str, count: int) -> list[str]:
    draw = random.Random(words)
    return [f"now {' '.join(draw.choices(words.split(), k=9))}" for _ in range(count)]


@pytest.fixture
def registry(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "registry.db"))


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    key = SampleKeys.new_key()
    monkeypatch.setenv(KEY, key)
    monkeypatch.setenv(SHARE, "1")
    return key


def served(registry: Path, asked: list[str], tenant: Tenant | None = None) -> None:
    """Route requests on a server of the registry, from its start to its end."""

    async def serve() -> None:
        with Registry.open(registry, read_only=True) as opened:
            snapshot = RegistrySnapshot.read(opened)
        state = ServerState(snapshot=snapshot)
        keeper = DemandKeeper(state)
        seen = snapshot if tenant is None else snapshot.seen_by(tenant)
        for text in asked:

            async def text_of(_: bool, text: str = text) -> str:
                return text

            await Chooser(state).choose(text_of, Constraints(), seen)
        await asyncio.to_thread(keeper.keep)

    asyncio.run(serve())


def kept(registry: Path) -> list[Sample]:
    with Registry.open(registry) as opened:
        return opened.samples()


def test_what_recurs_is_kept_encrypted_and_named_nowhere(
    registry: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    served(registry, texts(STRANGE, 12))
    samples = kept(registry)
    assert len(samples) >= 8
    assert len({sample.kind for sample in samples}) == 1
    keys = SampleKeys.from_environment()
    assert keys is not None
    assert {keys.decrypt(sample.text) for sample in samples} <= set(texts(STRANGE, 12))
    for file in registry.parent.glob("registry.db*"):
        assert b"frobnicate" not in file.read_bytes()
    assert "frobnicate" not in caplog.text + repr(samples)
    assert key not in caplog.text + repr(keys)


def test_a_server_without_the_key_keeps_no_text(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    state = ServerState()
    DemandKeeper(state)
    assert state.sample is None
    served(registry, texts(STRANGE, 12))
    assert kept(registry) == []


def test_what_does_not_recur_or_is_known_is_not_kept(registry: Path, key: str) -> None:
    known = [f"please simmer the onion soup with butter {word}" for word in "abcdefghijkl"]
    served(registry, [*texts(STRANGE, 5), *known, *[STRANGE] * 12])
    assert kept(registry) == []


def test_requests_of_two_servers_are_of_one_kind(registry: Path, key: str) -> None:
    for part in (texts(STRANGE, 24)[:12], texts(STRANGE, 24)[12:]):
        served(registry, part)
    served(registry, texts(STRANGE, 24)[:12])
    samples = kept(registry)
    assert len({sample.kind for sample in samples}) == 1
    assert len(samples) > 12
    keys = SampleKeys.from_environment()
    assert keys is not None
    stored = [keys.decrypt(sample.text) for sample in samples]
    assert len(stored) == len(set(stored)), "a request that came twice was kept twice"


def test_unlike_requests_are_of_two_kinds(registry: Path, filled: Path) -> None:
    with Registry.open(registry, read_only=True) as opened:
        profile = Router.from_registry(opened).profile
    rows = profile.features.transform([*texts(STRANGE, 12), *texts(OTHER, 12)])
    kinds = recurring(rows, profile, {})
    assert len(set(kinds[:12]) - {None}) == len(set(kinds[12:]) - {None}) == 1
    assert not set(kinds[:12]) & set(kinds[12:]) - {None}
    again = recurring(rows[:3], profile, {"0" * 8: rows[3:12]})
    assert again == ["0" * 8] * 3
    assert recurring(rows[3:4], profile, {"0" * 8: rows[3:12]}) == [""]
    assert recurring(rows[:0], profile, {}) == []


def test_a_kind_stays_within_its_bound(registry: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "EACH", 9)
    for _ in range(2):
        served(registry, texts(STRANGE, 20))
    assert len(kept(registry)) == 9


@pytest.mark.parametrize("samples", [False, True])
def test_a_tenants_requests_are_kept_where_it_agrees(registry: Path, key: str, samples: bool) -> None:
    tenant = Tenant(name="kitchen", adapters=frozenset({"chef"}), samples=samples)
    served(registry, texts(STRANGE, 12), tenant)
    assert bool(kept(registry)) is samples
    assert {sample.tenant for sample in kept(registry)} <= {"kitchen"}


def test_texts_expire(registry: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOURS, "2")
    served(registry, texts(STRANGE, 12))
    [until] = {round((sample.expires_at - datetime.now(UTC)) / timedelta(hours=1), 1) for sample in kept(registry)}
    assert until == 2.0


def test_keys_are_changed_while_old_texts_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = SampleKeys.new_key(), SampleKeys.new_key()

    def keys(given: str) -> SampleKeys:
        monkeypatch.setenv(KEY, given)
        found = SampleKeys.from_environment()
        assert found is not None
        return found

    sealed = keys(old).encrypt("a text \ud800")
    assert keys(f"{new} {old}").decrypt(sealed) == "a text \ud800"
    assert keys(new).decrypt(sealed) is None
    assert keys(new).decrypt(b"not a token") is None
    assert keys(old).decrypt(keys(f"{new} {old}").encrypt("x")) is None


def test_a_wrong_key_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, f"{SampleKeys.new_key()} hunter2")
    with pytest.raises(InputError, match="traitroute samples key") as refused:
        DemandKeeper(ServerState())
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(("variable", "value"), [(SHARE, "2"), (SHARE, "nan"), (HOURS, "0"), (HOURS, "a day")])
def test_wrong_settings_are_refused(key: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=f"{variable} is '{value}'"):
        Sampler.from_environment()


def test_a_registry_that_is_away_costs_no_text(registry: Path, key: str) -> None:
    with Registry.open(registry, read_only=True) as opened:
        snapshot = RegistrySnapshot.read(opened)
    state = ServerState(snapshot=snapshot)
    keeper = DemandKeeper(state)
    assert state.sample is not None and snapshot.router is not None
    for text in texts(STRANGE, 12):
        state.sample(text, snapshot.router.route(text), snapshot)
    away = registry.rename(registry.with_name("away.db"))
    keeper.keep()
    away.rename(registry)
    keeper.keep()
    assert len(kept(registry)) >= 8
    assert np.isfinite(kept(registry)[0].row()).all()
