"""What is copied from folders, storage, real web servers on this machine (redirects, sizes, time) and a small Hub."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from traitroute.adapters import AllowedSources, InputError, SourceError, WeightsError
from traitroute.adapters.weights import fetching
from traitroute.adapters.weights.fetching import fetch, read_card
from traitroute.adapters.weights.sources import Source

pytest.importorskip("aiohttp", reason="needs fsspec's package for the web: pip install aiohttp")
fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install 'traitroute[sources]'")

MakeAdapter = Callable[..., Path]
Answer = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """A web server that answers each path as `answers` say, and records which paths were asked for."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    @contextmanager
    def running(self) -> Iterator[str]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                web.answers.get(self.path.partition("?")[0], status(404))(self)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def status(code: int, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def body(data: bytes, *, length: int | None = None) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(data) if length is None else length))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)

    return answer


def endless(pause_s: float, chunk: bytes) -> Answer:
    """Bytes without end, and without saying how many."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while request.command != "HEAD":
                request.wfile.write(chunk)
                time.sleep(pause_s)
        except OSError:
            pass

    return answer


@pytest.fixture
def files(make_adapter: MakeAdapter) -> dict[str, Answer]:
    """An adapter's two files under /allowed/polite."""
    return {f"/allowed/polite/{f.name}": body(f.read_bytes()) for f in make_adapter().iterdir()}


WEIGHTS = "/allowed/polite/adapter_model.safetensors"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "copy").mkdir()
    return tmp_path / "copy"


def test_an_adapter_is_read_from_a_web_server(files: dict[str, Answer], copy: Path) -> None:
    with Web(files).running() as url:
        fetch(Source.parse(f"{url}/allowed/polite"), copy)
    assert {file.name for file in copy.iterdir()} == {Path(path).name for path in files}


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["/elsewhere/w", "other", "file:///etc/passwd", "//127.0.0.1:1/"])
def test_no_redirect_is_followed(files: dict[str, Answer], copy: Path, code: int, to: str) -> None:
    secret = Web({"/w": body(b"secret")})
    web = Web(files | {"/elsewhere/w": files[WEIGHTS]})
    with secret.running() as elsewhere, web.running() as url:
        target = f"{elsewhere}/w" if to == "other" else to
        web.answers[WEIGHTS] = status(code, Location=target)
        with pytest.raises(SourceError, match=f"redirected .status {code}.*not followed"):
            fetch(Source.parse(f"{url}/allowed/polite"), copy)
    assert secret.asked == []
    assert "/elsewhere/w" not in web.asked


def test_a_redirect_after_a_first_honest_answer_is_not_followed(files: dict[str, Answer], copy: Path) -> None:
    """The size is asked for first, and what is read then may be redirected all the same."""
    web = Web(dict(files))

    def change_its_mind(request: BaseHTTPRequestHandler) -> None:
        honest = request.command == "HEAD"
        (files[WEIGHTS] if honest else status(302, Location="/elsewhere/w"))(request)

    web.answers |= {WEIGHTS: change_its_mind, "/elsewhere/w": files[WEIGHTS]}
    with web.running() as url, pytest.raises(SourceError, match="redirected"):
        fetch(Source.parse(f"{url}/allowed/polite"), copy)
    assert "/elsewhere/w" not in web.asked


def test_absent_files_and_failures_are_distinguished(files: dict[str, Answer], copy: Path) -> None:
    del files[WEIGHTS]
    web = Web(files)
    with web.running() as url:
        with pytest.raises(WeightsError, match=r"has no adapter_model\.safetensors"):
            fetch(Source.parse(f"{url}/allowed/polite"), copy)
        web.answers["/allowed/other/adapter_config.json"] = status(503)
        with pytest.raises(SourceError, match=r"cannot be read \(ClientResponseError"):
            fetch(Source.parse(f"{url}/allowed/other"), copy)
    with pytest.raises(SourceError, match=r"cannot be read \(ClientConnector"):
        fetch(Source.parse(f"{url}/allowed/polite"), copy)


def test_a_page_that_lists_files_is_not_searched(files: dict[str, Answer], copy: Path) -> None:
    """fsspec searches it by expressions that take quadratic time, however long it is."""
    del files[WEIGHTS]
    web = Web(files | {"/allowed/polite": endless(0, b"<a " * 1000)})
    with web.running() as url, pytest.raises(WeightsError, match="has no adapter_model"):
        fetch(Source.parse(f"{url}/allowed/polite"), copy)
    assert "/allowed/polite" not in web.asked


def test_a_size_that_is_stated_is_refused_before_anything_is_read(files: dict[str, Answer], copy: Path) -> None:
    files[WEIGHTS] = body(b"", length=10**12)
    with (
        Web(files).running() as url,
        pytest.raises(SourceError, match="larger than the 4294967296"),
    ):
        fetch(Source.parse(f"{url}/allowed/polite"), copy)
    assert not (copy / "adapter_model.safetensors").exists()


def test_a_stream_without_end_is_counted(files: dict[str, Answer], copy: Path) -> None:
    files[WEIGHTS] = endless(0, bytes(2**16))
    with Web(files).running() as url, pytest.raises(SourceError, match="larger than the 3000000"):
        fetch(Source.parse(f"{url}/allowed/polite"), copy, largest=3_000_000)
    assert (copy / "adapter_model.safetensors").stat().st_size <= 3_000_000


@pytest.mark.parametrize(("pause_s", "why"), [(0.05, "comes too slowly: "), (60, "cannot be read .*Timeout")])
def test_a_place_that_trickles_or_falls_silent_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, Answer],
    copy: Path,
    pause_s: float,
    why: str,
) -> None:
    monkeypatch.setattr(fetching, "PATIENCE_S", 0.5)
    files[WEIGHTS] = endless(min(pause_s, 5), b"x")
    since = time.monotonic()
    with Web(files).running() as url:
        with pytest.raises(SourceError, match=why):
            fetch(Source.parse(f"{url}/allowed/polite"), copy)
        assert time.monotonic() - since < 3


TAKEN, PROPOSED = "a" * 40, "b" * 40
FETCH = """
import sys
from pathlib import Path
from traitroute.adapters import TraitRouteError
from traitroute.adapters.weights.fetching import fetch
from traitroute.adapters.weights.sources import Source
for number, uri in enumerate(sys.argv[2:]):
    into = Path(sys.argv[1]) / str(number)
    into.mkdir()
    try:
        fetch(Source.parse(uri), into)
        print("taken", sorted(file.name for file in into.iterdir()))
    except TraitRouteError as exc:
        print(exc)
"""


def as_json(data: object) -> Answer:
    return body(json.dumps(data).encode())


def small_hub(folder: Path, store: str) -> dict[str, Answer]:
    """The Hub with one repository, whose files lie at another place, to which it redirects."""
    ref = {"name": "main", "ref": "refs/heads/main", "targetCommit": TAKEN}
    author = {"title": "", "message": "", "date": "2026-01-01T00:00:00.000Z", "authors": []}
    refs = {"branches": [ref], "tags": [ref | {"name": "v1"}], "converts": []}
    answers = {
        "/api/models/acme/polite": as_json({"id": "acme/polite"}),
        "/api/models/acme/polite/refs": as_json(refs),
        "/api/models/acme/polite/commits/main": as_json([{"id": TAKEN, **author}]),
        "/api/models/acme/polite/commits/v1": as_json([{"id": TAKEN, **author}]),
    }
    infos = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0"} for f in folder.iterdir()]
    for revision in ("main", "v1", TAKEN, PROPOSED):
        answers[f"/api/models/acme/polite/revision/{revision}"] = as_json({"id": "acme/polite"})
        answers[f"/api/models/acme/polite/paths-info/{revision}"] = as_json(infos)
        answers[f"/api/models/acme/polite/tree/{revision}"] = as_json(infos)
        for file in folder.iterdir():
            at = f"/acme/polite/resolve/{revision}/{file.name}"
            answers[at] = status(302, Location=f"{store}/{file.name}")
    return answers


@pytest.mark.slow
def test_of_the_hub_branches_tags_and_their_commits_are_taken_and_no_pull_request(
    make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    folder = make_adapter()
    store = Web({f"/{file.name}": body(file.read_bytes()) for file in folder.iterdir()})
    hub = Web({})
    revisions = ("", "@main", "@v1", f"@{TAKEN}", f"@{PROPOSED}", "@refs%2Fpr%2F1", "@other")
    with store.running() as elsewhere, hub.running() as url:
        hub.answers |= small_hub(folder, elsewhere)
        environment = os.environ | {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0"}
        uris = [f"acme/polite{revision}" for revision in revisions]
        command = [sys.executable, "-c", FETCH, str(tmp_path), *uris]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(revisions), done.stderr
    assert all(line.startswith("taken") for line in lines[:4])
    assert "no branch, tag or commit 'bbb" in lines[4]
    assert "a pull request that anybody may open" in lines[5]
    assert "no branch, tag or commit 'other'" in lines[6]


@pytest.fixture
def bucket(make_adapter: MakeAdapter) -> Iterator[str]:
    """The URL of an adapter in a file system of fsspec's, with a pickle beside it."""
    system = fsspec.filesystem("memory")
    for file in make_adapter("in-the-bucket").iterdir():
        system.pipe(f"/bucket/polite/{file.name}", file.read_bytes())
    system.pipe("/bucket/polite/training_args.bin", b"cos\nsystem\n")
    yield "memory://bucket/polite"
    system.rm("/bucket", recursive=True)


def test_of_a_url_the_named_files_are_copied_and_no_pickle(bucket: str, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    fetch(Source.parse(bucket), target)
    assert {file.name for file in target.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_url_with_only_pickles_is_refused(bucket: str, tmp_path: Path) -> None:
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


def test_a_pipe_is_not_waited_for_while_copying(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(folder / "adapter_model.safetensors")
    (tmp_path / "copy").mkdir()
    with pytest.raises(SourceError, match="no plain file"):
        fetch(Source(folder=folder), tmp_path / "copy")


def test_unknown_storage_is_named(tmp_path: Path) -> None:
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
    assert read_card(tmp_path / "README.md").licence == licence


@pytest.mark.parametrize(
    ("front", "datasets"),
    [
        ("datasets:\n- imdb\n- acme/legal\ntags: [x]", ("imdb", "acme/legal")),
        ("datasets:\n  - imdb\nlicense: mit", ("imdb",)),
        ("datasets: [imdb, 3]", ("imdb",)),
        ("datasets:\n- " + "x" * 200 + "\n- imdb", ("imdb",)),
        ("datasets: imdb", ("imdb",)),
        ("datasets: {imdb: 1}", ()),
        ("tags:\n- imdb", ()),
        ("datasets:\n" + "- a\n" * 100_000, ("a",) * 8),
    ],
)
def test_the_training_data_is_what_the_readme_names(tmp_path: Path, front: str, datasets: tuple[str, ...]) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# Polite")
    assert read_card(tmp_path / "README.md").datasets == datasets
