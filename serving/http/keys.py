"""API keys: without one nothing is answered but health and what shows no data, whichever way of serving it is.

vLLM asks for its keys under `/v1` and a few other prefixes only; `/invocations`, `/pooling`, `/tokenize`, `/adapters` and more
answer anybody. So `KeyCheck` stands around all of vLLM too, outermost, and goes by a list of what is open: whatever else a
server has, now or in its next version, asks for a key.
"""

import hashlib
import os
import secrets
from argparse import Namespace
from collections.abc import Collection, Iterable
from typing import Self

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from ..page import page_paths
from .errors import asked_path, error_reply, is_anthropic

HEALTH = "/health"
KEY_DIGEST = "traitroute.key"
"""Where a scope says by which key it was admitted: the key's SHA-256; absent where the server has no keys."""
_POLICY_VIOLATION = 1008


class ApiKeys:
    """Says which requests bear one of the keys; with no keys set, all pass."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys if key]

    @classmethod
    def of_server(cls, args: Namespace) -> Self:
        """The keys that vLLM was started with: `--api-key`, else `VLLM_API_KEY`."""
        given = getattr(args, "api_key", None) or os.environ.get("VLLM_API_KEY") or ()
        return cls([given] if isinstance(given, str) else given)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, scope: Scope) -> bool:
        """Whether the request bears a key."""
        return not self or self.find(scope) is not None

    def find(self, scope: Scope) -> str | None:
        """The key that the request bears, where it is one of these; Anthropic's clients tell it in `x-api-key`."""
        headers = Headers(scope=scope)
        scheme, _, key = _only(headers, "authorization").partition(" ")
        if scheme.lower() == "bearer" and self.match(key):
            return key
        key = _only(headers, "x-api-key")
        return key if is_anthropic(scope) and self.match(key) else None

    def match(self, key: str) -> bool:
        """Whether `key` is one of the keys."""
        given = _digest(key)
        # Every key is compared, so that the time tells nothing.
        return any([secrets.compare_digest(given, digest) for digest in self._digests])


class KeyCheck:
    """Pure ASGI middleware: who bears no key gets health, the page's files and the paths `also_open`, by GET and HEAD alone.

    All else gets a 401 with `message`, but `OPTIONS`, which asks for nothing, an empty answer. What is told in `x-api-key` goes
    on as a bearer token, for checks further in.
    """

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, message: str, also_open: Collection[str] = ()) -> None:
        self.app = app
        self._keys = keys
        self._message = message
        self._open = page_paths() | {HEALTH, *also_open}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._keys:
            await self.app(scope, receive, send)
            return
        method = scope.get("method")
        if (key := self._keys.find(scope)) is not None:
            await self.app(_borne(scope, key), receive, send)
        elif asked_path(scope) in self._open and method in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await WebSocketClose(_POLICY_VIOLATION)(scope, receive, send)
        elif method == "OPTIONS":
            await Response(status_code=204)(scope, receive, send)
        else:
            await error_reply(401, self._message)(scope, receive, send)


def _only(headers: Headers, name: str) -> str:
    """A header's value; empty where it is not there, or not once."""
    values = headers.getlist(name)
    return values[0] if len(values) == 1 else ""


def _borne(scope: Scope, key: str) -> Scope:
    """The scope with its key as a bearer token, and the key's digest."""
    given = (b"authorization", b"x-api-key")
    kept = [header for header in scope["headers"] if header[0].lower() not in given]
    token = (b"authorization", b"Bearer " + key.encode("latin-1"))
    return {**scope, "headers": [*kept, token], KEY_DIGEST: _digest(key)}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
