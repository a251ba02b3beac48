"""A registry is at a path or a URL, and its password is shown to nobody."""

from pathlib import Path

import pytest
from traitroute.adapters import BusyError, DatabaseError, Location, Registry, RegistryError

SECRET = "postgresql+psycopg://me:s3cret@db.example:5433/team?sslpassword=s3cret"


def test_a_path_stays_a_path() -> None:
    assert Location.parse("team.db") == Location.parse(Path("team.db")) == Location(Path("team.db"))
    assert str(Location.parse("a b/team.db")) == "a b/team.db"


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
def test_a_url_is_one_of_postgresql(driver: str) -> None:
    location = Location.parse(f"{driver}://me@db.example/team")
    assert location.reveal() == "postgresql+psycopg://me@db.example/team"


@pytest.mark.parametrize("given", ["mysql://me@db/team", "sqlite:///team.db", "postgresql://me@db:port/x"])
def test_other_urls_are_refused(given: str) -> None:
    with pytest.raises(RegistryError, match="wanted a file, or postgresql"):
        Location.parse(given)


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://u:p@ss@h/db",
        "postgresql://u:p?s@ss@h/db",
        "postgresql://u:@ss@h/db",
        "postgresql://u/x:ss@h/db",
        "postgresql://u:ss@[::1/db",
        "postgresql://u:p@ss@h:x/db",
        "postgresql:u:ss@h/db",
        Path("postgresql://u:ss@h/db"),
        "host=h user=u password=ss",
    ],
)
def test_no_part_of_a_password_is_shown_of_a_url_that_cannot_be_read(given: str | Path) -> None:
    with pytest.raises(RegistryError, match="write '@' as %40") as caught:
        Location.parse(given)
    assert "ss" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("password", ["p:ss", "p/ss", "p#ss", "p?ss", "p%40ss", "p%ss", "p ss"])
def test_a_password_of_odd_characters_is_understood_and_not_shown(password: str) -> None:
    location = Location.parse(f"postgresql://u:{password}@127.0.0.1:1/db")
    assert location.url is not None and location.url.password == password.replace("%40", "@")
    with pytest.raises(BusyError) as caught:
        Registry.open(location)
    assert "ss" not in f"{location} {caught.value}"


def test_a_password_is_never_printed() -> None:
    location = Location.parse(SECRET)
    assert "s3cret" not in f"{location} {location!r}"
    assert location.reveal() == SECRET
    assert Location.parse(location) == location


def test_a_server_that_is_not_there_is_reported_without_the_password() -> None:
    with pytest.raises(DatabaseError, match="check that the server runs") as caught:
        Registry.open("postgresql://me:s3cret@127.0.0.1:1/team")
    assert "s3cret" not in str(caught.value)


def test_a_registry_on_a_server_needs_a_folder_of_weights(
    postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    monkeypatch.delenv("TRAITROUTE_WEIGHTS", raising=False)
    with Registry.create(url) as registry:
        with pytest.raises(RegistryError, match="Set TRAITROUTE_WEIGHTS"):
            _ = registry.weights
        with pytest.raises(RegistryError, match="is no file"):
            _ = registry.path
        monkeypatch.setenv("TRAITROUTE_WEIGHTS", str(tmp_path / "shared"))
        assert registry.weights.root == tmp_path / "shared"
    with Registry.open(url, weights=tmp_path / "given") as registry:
        assert registry.weights.root == tmp_path / "given"
