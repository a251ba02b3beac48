"""Addresses: which web pages may use a server, and how other servers are shown and reached.

An origin is what a browser says of the page that sends a request: scheme, host and, unless it is the scheme's default,
port. Cookies are neither read nor set, so CORS credentials are never allowed: a page that has a key sends it in a
header.
"""

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from socket import inet_aton
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ...adapters import InputError

ANY = "*"
_ROUTING = ("adapter", "gain", "reason", "profile", "arm", "propensity", "decision", "decision-id", "decision-token")
EXPOSED = (*(f"x-traitroute-{name}" for name in _ROUTING), "retry-after", "x-request-id")
"""The response headers that pages may read, beside those that CORS always lets them read."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:]+")
_LOCAL = ("localhost", "127.0.0.1", "::1")


def read_origins(given: Iterable[str], *, keyed: bool) -> tuple[str, ...]:
    """Check and normalise the origins that an operator allows; `*` is any, for servers that are `keyed` only.

    Raises:
        InputError: one is not as browsers write it, or any page might use a server without a key.
    """
    origins = tuple(text if text == ANY else _origin(text) for text in given)
    if ANY in origins and not keyed:
        raise InputError(
            "--cors-origin '*' lets every web page use a server that asks for no key: set a key, or name the origins"
        )
    return origins


def cross_origin(origins: Collection[str]) -> list[Middleware]:
    """The CORS middleware for these origins; it belongs outside the key check, since preflight requests bear no key."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=_METHODS, allow_headers=[ANY], expose_headers=EXPOSED
        )
    ]


def may_speak(origin: str, allowed: Collection[str]) -> bool:
    """Whether pages of `origin` may speak MCP: those of this machine and of the `allowed` origins; `*` allows none."""
    try:
        written = _origin(origin)
    except InputError:
        return False
    url = urlsplit(written)
    return written in allowed or (url.scheme in _PORTS and url.hostname in _LOCAL)


def public(url: str) -> str:
    """The URL without what may be secret: user, password, query and fragment, wherever a typo may have put them."""
    scheme, separator, rest = url.rpartition("://") if "://" in url else ("", "", url)
    shown = rest.rpartition("@")[2].partition("?")[0].partition("#")[0]
    return scheme.rpartition("@")[2] + separator + shown


def proxy_of(url: str) -> str | None:
    """The proxy through which the environment wants `url` reached; never one for a server on this machine.

    `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` mean what they mean to `urllib`; `NO_PROXY` may hold
    networks too, as in 10.0.0.0/8.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    exempt = proxy_bypass(f"{host}:{parts.port}" if parts.port else host)
    if not proxy or exempt or _is_this_machine(host) or _is_within(host, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def server_url(given: str, *, key_option: str) -> str:
    """The address of an OpenAI-compatible server, without the `/v1` at its end, which requests' paths hold already.

    Raises:
        InputError: it is no such address, or holds what may be secret; `key_option` is where keys go instead.
    """
    try:
        url = urlsplit(given)
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        url, valid = None, False
    if url is None or not valid or "@" in given or url.query or url.fragment:
        raise InputError(
            f"{public(given)!r} is not the address of a server: wanted http:// or https://, a host and perhaps a port "
            f"and a path, as in http://localhost:8000 (keys go into {key_option})"
        )
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/').removesuffix('/v1')}"


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


def _is_within(host: str, no_proxy: str) -> bool:
    for entry in no_proxy.split(","):
        with suppress(ValueError):
            if ip_address(host) in ip_network(entry.strip(), strict=False):
                return True
    return False


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        try:
            # The resolver takes 127.1 and 2130706433 for addresses too.
            address = ip_address(inet_aton(host))
        except OSError:
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified
