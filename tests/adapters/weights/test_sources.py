"""Which sources are understood, and which are allowed."""

import posixpath
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitroute.adapters import AllowedSources, SourceError
from traitroute.adapters.weights.sources import Source


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("/srv/adapters/polite", Source(folder=Path("/srv/adapters/polite"))),
        ("file:///srv/polite", Source(folder=Path("/srv/polite"))),
        ("acme/polite", Source(url="hf://acme/polite")),
        ("acme/polite@v2", Source(url="hf://acme/polite@v2")),
        ("hf://acme/polite/lora", Source(url="hf://acme/polite/lora")),
        ("S3://bucket/polite/", Source(url="s3://bucket/polite")),
    ],
)
def test_folders_hub_ids_and_urls_are_distinguished(uri: str, place: Source) -> None:
    assert Source.parse(uri) == place


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("", "no place"),
        ("polite", "no place"),
        ("/srv/\0", "no place"),
        ("x" * 3000, "no place"),
        ("/srv/../etc", "climbs"),
        ("file:///srv/../etc", "climbs"),
        ("file://host/srv", "no place"),
        ("s3://bucket/a/../b", "climbs"),
        ("https://host/a/%2e%2e/b", "climbs"),
        ("https://host/a/%252e%252e/b", "climbs"),
        ("https://host/a/%25252e%25252e%252fb", "climbs"),
        ("https://host/a/..;/b", "climbs"),
        ("https://host/a/..%5cb", "climbs"),
        ("https://host/a\\..\\b", "climbs"),
        ("s3://bucket//b", "empty part"),
        ("s3://bucket/a%2F%2Fb", "empty part"),
        ("s3:///bucket/b", "empty part"),
        ("hf://acme/polite@refs/pr/1", "pull request"),
        ("hf://acme/polite@refs%2Fpr%2F1", "pull request"),
        ("hf://acme/polite@refs%2fpr%2f1/lora", "pull request"),
        ("hf://acme/polite@refs%252Fpr%252F1", "pull request"),
        ("hf://acme/polite@%72efs%2Fpr%2F1", "pull request"),
        ("hf://acme/polite@refs/convert/parquet", "pull request"),
        ("acme/polite@refs%2Fpr%2F1", "pull request"),
        ("acme/polite@refs/pr/1", "no place"),
        ("hf://acme/polite/lora@refs%2Fpr%2F1", "no Hub id"),
        ("hf://acme/polite%2F..", "climbs"),
        ("hf://models/acme/polite", "none of the Hub's models"),
        ("hf://kernels/acme/polite", "none of the Hub's models"),
        ("hf://acme", "no Hub id"),
        ("hf://datasets/acme/polite", "none of the Hub's models"),
        ("simplecache::s3://bucket/a", "chained"),
        ("s3://key:secret@bucket/a", "credentials"),
        ("https://host/a?signature=secret", "credentials"),
    ],
)
def test_what_climbs_hides_or_names_nothing_is_no_place(uri: str, why: str) -> None:
    with pytest.raises(SourceError, match=why) as refusal:
        Source.parse(uri)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("entry", "uri"),
    [
        ("hub", "acme/polite"),
        ("hf://acme", "acme/polite@v2"),
        ("hf://acme/polite", "acme/polite@v2"),
        ("s3://bucket/adapters/", "s3://bucket/adapters/polite"),
    ],
)
def test_what_is_under_a_listed_place_is_allowed(entry: str, uri: str) -> None:
    place = Source.parse(uri)
    assert AllowedSources.of([entry]).check(place) == place


@pytest.mark.parametrize(
    ("entry", "uri"),
    [
        ("", "acme/polite"),
        ("hf://acme", "acme-evil/polite"),
        ("hf://acme/polite", "acme/polite2"),
        ("s3://bucket/adapters", "s3://bucket/adapters-evil/polite"),
        ("s3://bucket/adapters", "gs://bucket/adapters/polite"),
        ("hub", "/srv/polite"),
        ("/srv/adapters", "/srv/adapters-evil"),
    ],
)
def test_nothing_else_is_allowed(entry: str, uri: str) -> None:
    with pytest.raises(SourceError, match="may not come from"):
        AllowedSources.of([entry]).check(Source.parse(uri))


PARTS = ["a", "..", ".", "%2e", "%252e", "..;x", ";", "/", "%2f", "%252F", "\\", "%5C", "@", "%00"]


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
def test_whatever_is_allowed_is_under_the_place_however_a_server_reads_it(path: str) -> None:
    allowed = AllowedSources.of(["https://host/allowed"])
    try:
        place = allowed.check(Source.parse(f"https://host/allowed/{path}"))
    except SourceError:
        return
    read = urlsplit(str(place)).path
    while (decoded := unquote(read)) != read:
        read = decoded
    parts = [part.partition(";")[0] for part in read.replace("\\", "/").split("/")]
    assert posixpath.normpath("/".join(parts)).startswith("/allowed")


def test_the_environment_lists_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITROUTE_ALLOWED_SOURCES", "/srv/adapters, hub,")
    allowed = AllowedSources.from_environment(["s3://bucket"])
    assert allowed.folders == (Path("/srv/adapters"),)
    assert allowed.urls == (("hf",), ("s3", "bucket"))


def test_a_link_in_an_allowed_folder_leads_nowhere_else(tmp_path: Path) -> None:
    allowed = AllowedSources.of([str(tmp_path / "allowed")])
    for name in ("allowed/inside", "outside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "allowed/escape").symlink_to(tmp_path / "outside")
    (tmp_path / "allowed/alias").symlink_to(tmp_path / "allowed/inside")
    inside = allowed.check(Source(folder=tmp_path / "allowed/alias"))
    assert inside.folder == (tmp_path / "allowed/inside").resolve()
    with pytest.raises(SourceError, match="may not come from"):
        allowed.check(Source(folder=tmp_path / "allowed/escape"))
