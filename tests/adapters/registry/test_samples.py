"""Samples are kept within their bounds, until they expire, and a registry of schema 11 gets their table."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, inspect
from traitroute.adapters import DemandWindow, KindComparison, Registry, RegistryError, Sample
from traitroute.adapters.registry import schema


def sample(kind: str = "0" * 8, *, hours: float = 1, text: bytes = b"sealed") -> Sample:
    return Sample(
        kind=kind,
        expires_at=datetime.now(UTC) + timedelta(hours=hours),
        profile_version=1,
        tenant="kitchen",
        features=DemandWindow.pack([np.array([0.5, -1.0])]),
        text=text,
    )


def test_samples_come_back_as_they_were_put(registry: Registry) -> None:
    given = [sample(), sample("1" * 8)]
    assert registry.put_samples(given, each=5, in_all=5) == 2
    assert registry.samples() == given
    assert registry.samples("1" * 8) == given[1:]
    np.testing.assert_array_equal(given[0].row(), [0.5, -1.0])


def test_a_kind_and_all_of_them_stay_within_their_bounds(registry: Registry) -> None:
    assert registry.put_samples([sample()] * 3, each=2, in_all=3) == 2
    assert registry.put_samples([sample(), sample("1" * 8), sample("1" * 8)], each=2, in_all=3) == 1
    assert [each.kind for each in registry.samples()] == ["0" * 8, "0" * 8, "1" * 8]


def test_what_has_expired_is_given_to_nobody_and_goes(registry: Registry) -> None:
    registry.put_samples([sample(hours=-1), sample("1" * 8)], each=5, in_all=5)
    assert [each.kind for each in registry.samples()] == ["1" * 8]
    registry.forget_expired_samples()
    assert rows(registry) == 1
    registry.put_samples([sample(hours=-1)], each=5, in_all=5)
    registry.put_samples([sample()], each=5, in_all=5)
    assert rows(registry) == 2


def rows(registry: Registry) -> int:
    with registry._transaction() as connection:
        return len(connection.execute(schema.samples.select()).all())


def test_a_kind_is_forgotten_or_all_are(registry: Registry) -> None:
    registry.put_samples([sample(), sample("1" * 8), sample("2" * 8)], each=5, in_all=5)
    assert registry.forget_samples("1" * 8) == 1
    assert registry.forget_samples("1" * 8) == 0
    assert registry.forget_samples() == 2


def refused(kind: str) -> KindComparison:
    return KindComparison(kind=kind, profile_version=1, by="agreement", requests=20, refused="nothing is told")


def test_what_comparing_gave_is_kept_in_the_place_of_what_was_before(registry: Registry) -> None:
    features = DemandWindow.pack([np.array([0.5, -1.0])])
    found = KindComparison(
        kind="0" * 8,
        profile_version=1,
        by="agreement",
        requests=20,
        adapters=("math",),
        verdicts=(0.5,),
        counts=(20,),
        lead=0.2,
        low=0.1,
        features=features,
    )
    registry.put_comparison(refused("0" * 8))
    registry.put_comparison(found)
    assert registry.comparisons() == [found]
    np.testing.assert_array_equal(found.rows(), [[0.5, -1.0]])
    registry.put_comparison(refused("1" * 8))
    assert [each.worth_it for each in registry.comparisons()] == [False, True]
    registry.forget_samples("0" * 8)
    assert [each.kind for each in registry.comparisons()] == ["1" * 8]


def test_samples_are_copied_with_a_registry_that_is_read_only(tmp_path: Path) -> None:
    with Registry.create(tmp_path / "a.db") as registry:
        registry.put_samples([sample()], each=5, in_all=5)
    with Registry.open(tmp_path / "a.db", read_only=True) as reader:
        assert len(reader.samples()) == 1
        with pytest.raises(RegistryError, match="read-only"):
            reader.forget_samples()


def test_a_registry_of_schema_11_gets_the_table(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__", "schema_12*", "schema_13*"))
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", folder)
        older.setattr(schema, "SCHEMA_VERSION", 11)
        with Registry.create(place) as registry:
            registry.put_demand_window(
                DemandWindow(profile_version=1, requests=3, novel=0, features=DemandWindow.pack([]))
            )
    engine = create_engine(place if "://" in place else f"sqlite:///{place}")
    assert not inspect(engine).has_table("samples")
    engine.dispose()
    with Registry.open(place) as registry:
        assert [window.requests for window in registry.demand_windows()] == [3]
        assert registry.put_samples([sample()], each=5, in_all=5) == 1
