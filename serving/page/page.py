"""The page at `/traits`: its files, and the plotting library from where it is installed; all of them open to anybody.

What the page shows comes from the data routes, which ask for the server's key. Starlette's `StaticFiles` is not used:
it compresses at every request, and knows neither these headers nor a weak ETag of the contents.
"""

import asyncio
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ..http.errors import error_response

PATH = "/traits"
_FOLDER = Path(__file__).with_name("static")
_PAGE = "page.html"
_WEEK_S = 7 * 24 * 3600
# Written out, since what `mimetypes` says depends on the machine.
_MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
# Plotly sets inline styles and adds style elements of its own; inline scripts are not allowed.
# Requests, answers and names are only shown as text, never as markup.
_SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def page_routes() -> list[Route]:
    """The page, its scripts and styles, and the plotting library."""
    # One route for each file: no path is made from what a request says.
    parts = (file for file in sorted(_FOLDER.iterdir()) if file.name != _PAGE)
    return [
        Route(PATH, partial(_file, _FOLDER / _PAGE)),
        Route(f"{PATH}/", _without_slash),
        Route(f"{PATH}/plotly.js", _plotly),
        *(Route(f"{PATH}/{file.name}", partial(_file, file)) for file in parts),
    ]


def page_paths() -> frozenset[str]:
    """The paths of these routes, which need no key."""
    return frozenset(route.path for route in page_routes())


@dataclass(frozen=True)
class ServedFile:
    """The bytes of a file, plain and as gzip."""

    plain: bytes
    packed: bytes
    media_type: str
    etag: str

    @classmethod
    @cache
    def read(cls, path: Path) -> Self:
        """Read and compress a file; a server does so once for each."""
        plain = path.read_bytes()
        # The same bytes on every machine: no time in the header.
        packed = gzip.compress(plain, 6, mtime=0)
        return cls(plain, packed, _MEDIA_TYPES[path.suffix], f'W/"{hashlib.sha256(plain).hexdigest()[:32]}"')

    def response(self, request: Request, *, max_age_s: int) -> Response:
        """The response to a GET: a 304 to a browser that has these bytes, which it may keep for `max_age_s` seconds."""
        headers = {
            **_SECURITY,
            "cache-control": f"max-age={max_age_s}" if max_age_s else "no-cache",
            "etag": self.etag,
            "vary": "accept-encoding",
        }
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.plain, headers=headers, media_type=self.media_type)
        headers["content-encoding"] = "gzip"
        return Response(self.packed, headers=headers, media_type=self.media_type)


async def _file(path: Path, request: Request, *, max_age_s: int = 0) -> Response:
    # Reading and compressing the plotting library takes a fifth of a second.
    file = await asyncio.to_thread(ServedFile.read, path)
    return file.response(request, max_age_s=max_age_s)


async def _without_slash(request: Request) -> Response:
    """A redirect to the page; its links are relative to its path, so that it works behind a prefix too."""
    return RedirectResponse(f"..{PATH}")


async def _plotly(request: Request) -> Response:
    path = _plotly_path()
    if path is None:
        return error_response(404, "no plots here: pip install 'traitroute[skills]'")
    return await _file(path, request, max_age_s=_WEEK_S)


def _plotly_path() -> Path | None:
    """Where the Python package `plotly` keeps the library for browsers; it need not be imported for that."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("package_data") / "plotly.min.js"
    return path if path.is_file() else None
