"""A file as browsers are served it: compressed once, with an ETag, and told how long it keeps."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from starlette.requests import Request
from starlette.responses import Response

# Written out: what `mimetypes` says depends on the machine.
_MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
# Plotly sets the styles of what it draws in the document, and brings style elements of its own; no script may.
# All that the page shows of a request, an answer or a name is text, never markup.
_SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


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
        return cls(
            plain,
            packed,
            _MEDIA_TYPES[path.suffix],
            f'W/"{hashlib.sha256(plain).hexdigest()[:32]}"',
        )

    def answer(self, request: Request, *, keeps_s: int) -> Response:
        """The response to a GET; after `keeps_s` seconds a browser asks again, and gets a 304 where it has the newest."""
        headers = {
            **_SECURITY,
            "cache-control": f"max-age={keeps_s}" if keeps_s else "no-cache",
            "etag": self.etag,
            "vary": "accept-encoding",
        }
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.plain, headers=headers, media_type=self.media_type)
        headers["content-encoding"] = "gzip"
        return Response(self.packed, headers=headers, media_type=self.media_type)
