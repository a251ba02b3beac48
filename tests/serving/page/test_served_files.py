"""The page's files: open without a key, compressed, cached by browsers, with a strict content security policy."""

import gzip
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from traitroute.adapters import Registry
from traitroute.serving.gateway import GatewayOptions, gateway_app
from traitroute.serving.page import page as module
from traitroute.serving.page import page_paths, page_routes


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=page_routes())) as client:
        yield client


def test_a_browser_that_has_the_newest_gets_no_body(client: TestClient) -> None:
    first = client.get("/traits")
    again = client.get("/traits", headers={"if-none-match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert first.headers["cache-control"] == "no-cache"


def test_every_file_says_what_it_is_and_what_it_may_load(client: TestClient) -> None:
    for path in page_paths() - {"/traits/", "/traits/plotly.js"}:
        answer = client.get(path)
        kind = "text/" + {".js": "javascript", ".css": "css"}.get(Path(path).suffix, "html")
        assert answer.headers["content-type"].startswith(kind), path
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "default-src 'none'" in policy
        assert "http" not in policy


def test_no_script_or_style_stands_in_the_page_itself(client: TestClient) -> None:
    found: list[tuple[str, dict[str, str | None]]] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Tags().feed(client.get("/traits").text)
    assert all("src" in attributes for tag, attributes in found if tag == "script")
    names = {name for _, attributes in found for name in attributes}
    assert {name for name in names if name.startswith("on") or name == "style"} == set()
    assert "style" not in {tag for tag, _ in found}


def test_the_plotting_library_is_sent_packed_and_kept_for_a_week(client: TestClient) -> None:
    pytest.importorskip("plotly", reason="needs it: pip install 'traitroute[skills]'")
    with client.stream("GET", "/traits/plotly.js", headers={"accept-encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["cache-control"] == "max-age=604800"
    plain = client.get("/traits/plotly.js", headers={"accept-encoding": "identity"})
    assert gzip.decompress(packed) == plain.content
    assert len(packed) < len(plain.content) / 3


def test_without_plotly_the_answer_says_what_to_install(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    answer = client.get("/traits/plotly.js")
    assert answer.status_code == 404
    assert "pip install 'traitroute[skills]'" in answer.json()["error"]["message"]


def test_only_the_pages_own_files_are_served(client: TestClient) -> None:
    client.follow_redirects = False
    for name in ("page.py", "../page.py", "%2e%2e/page.py", "..%2fpage.py", "page.html"):
        assert client.get(f"/traits/{name}").status_code == 404
    assert client.get("/traits/").headers["location"] == "../traits"
    assert {Path(path).suffix for path in page_paths()} == {"", ".css", ".js"}


def test_the_page_is_open_and_its_data_is_not(locked: Any) -> None:
    url = locked.url
    assert httpx.get(f"{url}/traits").status_code == 200
    assert httpx.get(f"{url}/traits/page.js").status_code == 200
    for path in (
        "/v1/traits",
        "/v1/matrix",
        "/v1/skills",
        "/metrics",
        "/traits/other",
        "/traits/a/b",
    ):
        assert httpx.get(f"{url}{path}").status_code == 401, path


def test_the_gateway_opens_the_page_and_hands_nothing_on_without_its_key(tmp_path: Path) -> None:
    options = GatewayOptions(("http://127.0.0.1:9",), key="a key")
    gateway = TestClient(gateway_app(options, lambda: Registry.open(tmp_path / "none.db")))
    assert gateway.get("/traits").text.startswith("<!doctype html>")
    assert gateway.post("/traits").status_code == 401
    for path in ("/traits/a/b", "/traits/other", "/v1/traits"):
        assert gateway.get(path).status_code == 401, path
