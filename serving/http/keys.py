"""API keys: what bears none of a server's keys gets nothing but the paths that are listed as open.

vLLM checks its keys under `/v1` and a few other prefixes only; `/invocations`, `/pooling`, `/tokenize`, `/adapters` and
more answer anybody. So `KeyCheck` is put around all of vLLM too, outermost, and works by a list of what is open:
whatever else a server has, now or in its next version, needs a key.
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

from .errors import asked_path, error_response, is_anthropic

HEALTH = "/health"
KEY_DIGEST = "traitroute.key"
"""The scope's entry with the SHA-256 of the key that was given; absent where the server has no keys."""
_POLICY_VIOLATION = 1008


class ApiKeys:
    """The API keys of a server; with none set, every request passes."""

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
        """The key that the request bears, if it is one of these; Anthropic's clients send it in `x-api-key`."""
        headers = Headers(scope=scope)
        scheme, _, key = _only(headers, "authorization").partition(" ")
        if scheme.lower() == "bearer" and self.match(key):
            return key
        key = _only(headers, "x-api-key")
        return key if is_anthropic(scope) and self.match(key) else None

    def match(self, key: str) -> bool:
        """Whether `key` is one of the keys."""
        given = _digest(key)
        # Every key is compared, so that the time taken reveals nothing.
        return any([secrets.compare_digest(given, digest) for digest in self._digests])


class KeyCheck:
    """Pure ASGI middleware: without a key only `open_paths` are answered, and only to GET and HEAD.

    Everything else gets a 401 with `message`, except `OPTIONS`, which gets an empty response. A key that came in
    `x-api-key` is passed on as a bearer token, for checks further in.
    """

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, message: str, open_paths: Collection[str] = ()) -> None:
        self.app = app
        self._keys = keys
        self._message = message
        self._open = frozenset(open_paths)

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
            await error_response(401, self._message)(scope, receive, send)


def _only(headers: Headers, name: str) -> str:
    """A header's value; empty unless it is given exactly once."""
    values = headers.getlist(name)
    return values[0] if len(values) == 1 else ""


def _borne(scope: Scope, key: str) -> Scope:
    """The scope with its key as a bearer token, and the key's digest beside it."""
    given = (b"authorization", b"x-api-key")
    kept = [header for header in scope["headers"] if header[0].lower() not in given]
    token = (b"authorization", b"Bearer " + key.encode("latin-1"))
    return {**scope, "headers": [*kept, token], KEY_DIGEST: _digest(key)}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
