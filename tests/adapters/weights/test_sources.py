"""Where adapters may come from, and what is copied from there."""

import os
import posixpath
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitroute.adapters import AllowedSources, InputError, SourceError, WeightsError
from traitroute.adapters.weights.sources import Source, fetch, read_licence

MakeAdapter = Callable[..., Path]

fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install 'traitroute[sources]'")


@pytest.fixture
def bucket(make_adapter: MakeAdapter) -> Iterator[str]:
    """The URL of an adapter in a file system of fsspec's, with a pickle beside it."""
    system = fsspec.filesystem("memory")
    for file in make_adapter("in-the-bucket").iterdir():
        system.pipe(f"/bucket/polite/{file.name}", file.read_bytes())
    system.pipe("/bucket/polite/training_args.bin", b"cos\nsystem\n")
    yield "memory://bucket/polite"
    system.rm("/bucket", recursive=True)


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
def test_folders_hub_ids_and_urls_are_told_apart(uri: str, place: Source) -> None:
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
def test_what_lies_under_a_listed_place_is_allowed(entry: str, uri: str) -> None:
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


PIECES = ["a", "..", ".", "%2e", "%252e", "..;x", ";", "/", "%2f", "%252F", "\\", "%5C", "@", "%00"]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_whatever_is_allowed_lies_under_the_place_however_a_server_reads_it(path: str) -> None:
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


def test_of_a_url_the_named_files_are_copied_and_no_pickle(bucket: str, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    fetch(Source.parse(bucket), target)
    assert {file.name for file in target.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_url_with_pickles_alone_is_told_so(bucket: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").rm("/bucket/polite/adapter_model.safetensors")
    with pytest.raises(WeightsError, match=r"only pickle \(training_args.bin\)"):
        fetch(Source.parse(bucket), tmp_path)


def test_files_are_copied_up_to_a_size(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = make_adapter()
    (tmp_path / "copy").mkdir()
    with pytest.raises(SourceError, match="larger than the 100 bytes"):
        fetch(Source(folder=folder), tmp_path / "copy", largest=100)
    assert not (tmp_path / "copy/adapter_model.safetensors").exists()


def test_the_largest_size_is_set_by_the_operator(
    monkeypatch: pytest.MonkeyPatch, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    folder = make_adapter()
    (tmp_path / "copy").mkdir()
    monkeypatch.setenv("TRAITROUTE_MAX_ADAPTER_BYTES", "100")
    with pytest.raises(SourceError, match=r"100 bytes.*TRAITROUTE_MAX_ADAPTER_BYTES"):
        fetch(Source(folder=folder), tmp_path / "copy")
    for wrong in ("0", "-1", "4 GB", "1e9", "٣", "9" * 30):
        monkeypatch.setenv("TRAITROUTE_MAX_ADAPTER_BYTES", wrong)
        with pytest.raises(InputError, match="give a number of bytes"):
            fetch(Source(folder=folder), tmp_path / "copy")


def test_what_the_disk_has_no_room_for_is_not_begun(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = make_adapter()
    os.truncate(folder / "adapter_model.safetensors", shutil.disk_usage(tmp_path).free)
    (tmp_path / "copy").mkdir()
    with pytest.raises(SourceError, match="make room there"):
        fetch(Source(folder=folder), tmp_path / "copy", largest=10**15)
    assert not (tmp_path / "copy/adapter_model.safetensors").exists()


def test_a_link_that_comes_into_a_path_once_it_is_checked_is_not_followed(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    for parent in (allowed, outside):
        parent.mkdir()
        make_adapter(f"{parent.name}-adapter").rename(parent / "polite")
    place = AllowedSources.of([str(allowed)]).check(Source(folder=allowed / "polite"))
    allowed.rename(tmp_path / "moved")
    allowed.symlink_to(outside)
    (tmp_path / "copy").mkdir()
    with pytest.raises(WeightsError, match="no adapter folder"):
        fetch(place, tmp_path / "copy")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_linked_file_is_not_read(make_adapter: MakeAdapter, tmp_path: Path, name: str) -> None:
    folder = make_adapter()
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "copy").mkdir()
    with pytest.raises(SourceError, match="symbolic link"):
        fetch(Source(folder=folder), tmp_path / "copy")


def test_a_pipe_holds_nobody_up(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(folder / "adapter_model.safetensors")
    (tmp_path / "copy").mkdir()
    with pytest.raises(SourceError, match="no plain file"):
        fetch(Source(folder=folder), tmp_path / "copy")


def test_storage_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nosuch://bucket/a cannot be read"):
        fetch(Source.parse("nosuch://bucket/a"), tmp_path)


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# Polite", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: acme-1\n---\n", "acme-1"),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\nlicense: " + "x" * 100 + "\n---\n", None),
        ("---\nlicense: {\n---\n", None),
        ("---\n- license\n---\n", None),
        ("# license: mit", None),
    ],
)
def test_the_licence_is_the_one_that_the_readme_states(tmp_path: Path, readme: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_text(readme)
    assert read_licence(tmp_path / "README.md") == licence
