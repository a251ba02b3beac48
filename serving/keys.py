"""API keys: without one nothing is routed or loaded, whichever way of serving it is.

vLLM asks for its keys under `/v1` and a few other prefixes only: `/tokenize`, `/pooling` and `/invocations` answer
anybody. There a request without a key must not make the plugin route or load; it gets what vLLM alone gives. The gateway and the
embedded server have nobody else to ask, and stand behind `KeyCheck`.
"""

import hashlib
import os
import secrets
from argparse import Namespace
from collections.abc import Iterable
from typing import Self

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .page import page_paths

HEALTH = "/health"


class ApiKeys:
    """Says which requests bear one of the keys; with no keys set, all pass."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys if key]

    @classmethod
    def of_server(cls, args: Namespace) -> Self:
        """The keys that vLLM was started with: `--api-key`, else `VLLM_API_KEY`."""
        given = getattr(args, "api_key", None) or os.environ.get("VLLM_API_KEY") or ()
        return cls([given] if isinstance(given, str) else given)

    def admit(self, scope: Scope) -> bool:
        """Whether the request bears a key, as `Authorization: Bearer KEY`."""
        if not self._digests:
            return True
        headers = Headers(scope=scope).getlist("authorization")
        scheme, _, key = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
        return self.match(key) and scheme.lower() == "bearer"

    def match(self, key: str) -> bool:
        """Whether `key` is one of the keys."""
        given = _digest(key)
        # Every key is compared, so that the time tells nothing.
        return any([secrets.compare_digest(given, digest) for digest in self._digests])


class KeyCheck:
    """Pure ASGI middleware that lets through what bears a key, questions after health and the page's files.

    All else gets `refusal`.
    """

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, refusal: Response) -> None:
        self.app = app
        self._keys = keys
        self._refusal = refusal
        self._open = page_paths() | {HEALTH}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passes = scope["type"] != "http" or scope["path"] in self._open or self._keys.admit(scope)
        await (self.app if passes else self._refusal)(scope, receive, send)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
