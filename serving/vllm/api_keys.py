"""vLLM's API keys, for the paths that vLLM itself leaves open.

vLLM asks for its keys under `/v1` and a few other prefixes only: `/tokenize`, `/pooling` and `/invocations` answer
anybody. There a request without a key must not make this plugin route or load; it gets what vLLM alone gives.
"""

import hashlib
import os
import secrets
from argparse import Namespace
from collections.abc import Iterable
from typing import Self

from starlette.datastructures import Headers
from starlette.types import Scope


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
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        given = _digest(key)
        # Every key is compared, so that the time tells nothing.
        matches = [secrets.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
