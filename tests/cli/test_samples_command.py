"""`traitroute samples`: a key is shown, texts are shown to who has it, and forgotten when asked."""

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import DemandWindow, KindComparison, Registry, Sample
from traitroute.router import RoutingProfile
from traitroute.serving.traffic.sampling import KEY, SampleKeys

Run = Callable[..., subprocess.CompletedProcess[str]]
TEXTS = ["count the \x1b[31mred balloons", "count the blue balloons"]


@pytest.fixture
def registry(profiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry that holds two samples of one kind and one of another."""
    monkeypatch.setenv(KEY, SampleKeys.new_key())
    keys = SampleKeys.from_environment()
    assert keys is not None
    path = Path(shutil.copy(profiled, tmp_path / "registry.db"))
    with Registry.open(path) as registry:
        profile = RoutingProfile.from_bytes(registry.profile(1).data)
        until = datetime.now(UTC) + timedelta(hours=5)
        registry.put_samples(
            [
                Sample(
                    kind=kind,
                    expires_at=until,
                    profile_version=1,
                    features=DemandWindow.pack([profile.features.row(text)]),
                    text=keys.encrypt(text),
                )
                for kind, text in zip(("0" * 8, "0" * 8, "1" * 8), [*TEXTS, TEXTS[0]], strict=True)
            ],
            each=9,
            in_all=9,
        )
    return path


def test_a_key_is_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, run("samples", "key").stdout.strip())
    assert SampleKeys.from_environment() is not None


def test_kinds_are_listed_without_their_texts(run: Run, registry: Path) -> None:
    listed = run("samples", "list", "--registry", registry).stdout
    assert "00000000" in listed and "11111111" in listed and "operator" in listed
    assert "balloons" not in listed


def test_who_has_the_key_reads_some_texts(run: Run, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = run("samples", "list", "--registry", registry, "--texts", "1").stdout
    assert r"00000000: count the \x1b[31mred balloons" in listed
    assert "blue" not in listed
    monkeypatch.setenv(KEY, SampleKeys.new_key())
    assert "encrypted by another key" in run("samples", "list", "--registry", registry, "--texts", "1").stdout
    monkeypatch.delenv(KEY)
    assert run("samples", "list", "--registry", registry).returncode == 0
    assert KEY in run("samples", "list", "--registry", registry, "--texts", "1").stderr


def test_a_kind_or_all_are_forgotten(run: Run, registry: Path) -> None:
    assert run("samples", "forget", "--registry", registry).returncode == 2
    assert run("samples", "forget", "0" * 8, "--all", "--registry", registry).returncode == 2
    assert "2 texts were removed" in run("samples", "forget", "0" * 8, "--registry", registry).stdout
    assert "no texts of kind" in run("samples", "forget", "0" * 8, "--registry", registry).stderr
    assert "1 texts were removed" in run("samples", "forget", "--all", "--registry", registry).stdout
    assert "no texts are kept" in run("samples", "list", "--registry", registry).stdout


def test_a_comparison_needs_the_key_before_anything_is_asked(
    run: Run, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY)
    asked = ("--server", "http://localhost:1", "--judge", "m", "--judge-url", "http://localhost:1/v1")
    ended = run("samples", "compare", *asked, "--registry", registry)
    assert ended.returncode == 2
    assert KEY in ended.stderr


def test_what_was_compared_is_shown_and_admitted_by_one_command(run: Run, registry: Path) -> None:
    assert "nothing was compared" in run("samples", "compared", "--registry", registry).stdout
    with Registry.open(registry) as store:
        stored = store.profile(store.profile_versions()[-1])
        profile = RoutingProfile.from_bytes(stored.data)
        [name, *_] = stored.summary.adapters
        known = {"profile_version": stored.version, "by": "agreement", "requests": 20}
        figures = {"verdicts": (0.5,), "counts": (20,), "predicted": (0.1,), "gains": (0.3,), "errors": (0.05,)}
        features = DemandWindow.pack(list(profile.features.transform(TEXTS)))
        store.put_comparison(
            KindComparison(
                kind="0" * 8,
                adapters=(name,),
                weights=(stored.summary.weights[name],),
                before=(0.0,),
                after=(1.0,),
                lead=0.2,
                low=0.1,
                features=features,
                **known,
                **figures,
            )
        )
        store.put_comparison(KindComparison(kind="1" * 8, refused="the verdicts tell nothing", **known))
    shown = run("samples", "compared", "--registry", registry).stdout
    assert "00000000" in shown and "at least +0.100: worth admitting" in shown
    assert "kind 11111111, by agreement" in shown and "the verdicts tell nothing" in shown
    assert "the verdicts tell nothing" in run("samples", "admit", "1" * 8, "--registry", registry).stderr
    assert "version 2" in run("samples", "admit", "0" * 8, "--registry", registry).stdout
    assert "it has joined the profile" in run("samples", "compared", "--registry", registry).stdout


def test_a_judged_kind_is_removed_again(run: Run, registry: Path) -> None:
    with Registry.open(registry) as store:
        stored = store.profile(1)
        profile = RoutingProfile.from_bytes(stored.data)
        grown = profile.with_kind("0" * 8, profile.features.transform(TEXTS), np.zeros(3), 0.1)
        store.put_profile(grown.to_bytes(), stored.summary, origin="kind", parent=1)
    assert "version 3" in run("samples", "remove", "0" * 8, "--registry", registry).stdout
    assert "no recurring kind" in run("samples", "remove", "0" * 8, "--registry", registry).stderr
    assert "a judged kind joined or left" in run("profiles", "list", "--registry", registry).stdout
