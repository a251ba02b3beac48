"""Whether a server that a gateway would route to answers, and which models it has."""

import json
from base64 import b64encode
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from ..http.addresses import proxy_of, public
from .finding import Finding, fail, listed, ok, warn

LIMIT_S = 10
_WANTED = (
    "give it as http://HOST:PORT; in a user's name or a password write '@' as %40, '/' as %2F, '?' as %3F, '#' as %23"
)


class _NoRedirects(HTTPRedirectHandler):
    """As the gateway does: the key is for this server and no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


def check_upstream(url: str, *, key: str | None = None) -> Finding:
    """Ask the server at `url` (with or without /v1) for its models; `key` is its API key."""
    check = f"upstream {public(url)}"
    try:
        proxy, parts = proxy_of(url), urlsplit(url)
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError("a part of a user's name or password ended the host")
    except ValueError:
        return fail(check, "its URL cannot be read", _WANTED)
    through = f" through the proxy {public(proxy)}" if proxy else ""
    server = url.rstrip("/").removesuffix("/v1")
    try:
        names = _models(f"{server}/v1/models", key)
    except HTTPError as exc:
        exc.close()
        if exc.code in (401, 403):
            advice = "name the variable with its key: --upstream-key-env NAME"
            return fail(check, f"refuses the key (status {exc.code})", advice)
        return fail(
            check,
            f"status {exc.code} for /v1/models{through}",
            "is it an OpenAI-compatible server?",
        )
    except (URLError, HTTPException, OSError) as exc:
        reason = getattr(exc, "reason", None) or type(exc).__name__
        return fail(check, f"cannot be reached{through}: {reason}", "start it, or mend the URL")
    except (ValueError, KeyError, TypeError):
        return fail(check, "answers, but with no list of models", "is the URL right?")
    if not names:
        return warn(check, "reachable, without any model", "load one")
    found = f"{len(names)} models: {listed(names)}"
    if _has_lost_its_registry(f"{server}/metrics", key):
        found = f"its registry is away, so it goes on with what it read last: {found}"
        return warn(check, found, "see to the registry's file or database")
    return ok(check, found)


def _has_lost_its_registry(url: str, key: str | None) -> bool:
    """What servers of ours say in their metrics; others say nothing of it."""
    try:
        with _open(url, key) as response:
            return b"\ntraitroute_registry_reachable 0.0\n" in response.read()
    except (HTTPException, OSError):
        return False


def _models(url: str, key: str | None) -> list[str]:
    with _open(url, key) as response:
        listing: Any = json.load(response)
    return [str(card["id"]) for card in listing["data"]]


def _open(url: str, key: str | None) -> HTTPResponse:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise URLError("the URL must begin with http:// or https://")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    user, _, _ = parts.netloc.rpartition("@")
    if user and not key:
        headers["authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    proxy = proxy_of(url)
    opener = build_opener(ProxyHandler({parts.scheme: proxy} if proxy else {}), _NoRedirects)
    return opener.open(Request(public(url), headers=headers), timeout=LIMIT_S)
