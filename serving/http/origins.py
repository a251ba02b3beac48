"""Origins: which web pages may read what a server answers (CORS), and speak MCP to it.

An origin is what browsers say of the page that asks: scheme, host and, unless it is the scheme's own, port. No cookie is ever
asked for or answered to, so credentials are never allowed: a key is told in a header, by pages that have one.
"""

import re
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ...adapters import InputError

ANY = "*"
EXPOSED = (
    *(
        f"x-traitroute-{name}"
        for name in (
            "adapter",
            "gain",
            "reason",
            "profile",
            "decision",
            "decision-id",
            "decision-token",
        )
    ),
    "retry-after",
    "x-request-id",
)
"""The headers of answers that pages may read, beside those that any page may."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:]+")
_LOCAL = ("localhost", "127.0.0.1", "::1")


def read_origins(given: Iterable[str], *, keyed: bool) -> tuple[str, ...]:
    """The origins that an operator names; `*` is any, for servers that are `keyed`.

    Raises:
        InputError: one is not as browsers write it, or any page might ask a server without a key.
    """
    origins = tuple(text if text == ANY else _origin(text) for text in given)
    if ANY in origins and not keyed:
        raise InputError(
            "--cors-origin '*' lets every web page use a server that asks for no key: set a key, or name the origins"
        )
    return origins


def cross_origin(origins: Collection[str]) -> list[Middleware]:
    """The middleware by which pages of these origins may read answers; it belongs outside the check of keys.

    A browser asks by `OPTIONS` first, and with that it sends no key.
    """
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=[ANY],
            expose_headers=EXPOSED,
        )
    ]


def may_speak(origin: str, also: Collection[str]) -> bool:
    """Whether pages of `origin` may speak MCP: those of this machine, and of the origins `also` named; `*` names none."""
    try:
        written = _origin(origin)
    except InputError:
        return False
    url = urlsplit(written)
    return written in also or (url.scheme in _PORTS and url.hostname in _LOCAL)


def _origin(text: str) -> str:
    try:
        url = urlsplit(text)
        port, host = url.port, url.hostname or ""
    except ValueError:
        url, port, host = None, None, ""
    at = f"[{host}]" if ":" in host else host
    plain = f"{url.scheme}://{at}" if url and url.scheme and _HOST.fullmatch(host) else ""
    written = plain if port is None else f"{plain}:{port}"
    if not plain or written != text.lower():
        raise InputError(
            f"{text[:100]!r} is no origin: wanted what browsers write, as https://app.example or "
            "http://localhost:3000, without a path or a slash at the end"
        )
    return plain if url and port == _PORTS.get(url.scheme) else written
