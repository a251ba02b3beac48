"""API keys: what bears none of a server's keys gets nothing but the paths that are listed as open.

A key belongs to the operator, who may ask for everything, or to a tenant (`tenants`), who may ask at the paths that are
listed for tenants alone. The tenant is left in the scope; which adapters it sees follows from there.

vLLM checks its keys under `/v1` and a few other prefixes only; `/invocations`, `/pooling`, `/tokenize`, `/adapters` and
more answer anybody. So `KeyCheck` is put around all of vLLM too, outermost, and works by a list of what is open:
whatever else a server has, now or in its next version, needs a key.
"""

import os
import secrets
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Self

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from .errors import asked_path, error_response, is_anthropic
from .tenants import NOBODY, OPERATOR, TENANT, Tenant, TenantsFile, digest_of

HEALTH = "/health"
KEY_DIGEST = "traitroute.key"
"""The scope's entry with the SHA-256 of the key that was given; absent where the server has no keys."""
_POLICY_VIOLATION = 1008


@dataclass(frozen=True)
class Bearer:
    """The key that a request bears, and whose it is."""

    key: str
    tenant: Tenant


class ApiKeys:
    """The API keys of a server, the operator's `keys` and those in the file of `tenants`; with neither all pass."""

    def __init__(self, keys: Iterable[str], tenants: TenantsFile | None = None) -> None:
        self._own = [key for key in keys if key]
        self._digests = [digest_of(key) for key in self._own]
        self._tenants = tenants

    @classmethod
    def of_server(cls, args: Namespace) -> Self:
        """The keys that vLLM was started with, `--api-key`, else `VLLM_API_KEY`, and the environment's tenants.

        Raises:
            InputError: the tenants cannot be read.
        """
        given = getattr(args, "api_key", None) or os.environ.get("VLLM_API_KEY") or ()
        return cls([given] if isinstance(given, str) else given, TenantsFile.from_environment())

    def __bool__(self) -> bool:
        return self.have_tenants or bool(self._digests)

    @property
    def have_tenants(self) -> bool:
        """Whether some keys may be tenants'."""
        return self._tenants is not None

    @property
    def inner(self) -> str | None:
        """A key of the operator's, for a check further in that knows no other; None where there is none."""
        return self._own[0] if self._own else None

    async def refresh(self) -> None:
        """Follow changes of the tenants' file."""
        if self._tenants is not None:
            await self._tenants.refresh()

    def find(self, scope: Scope) -> Bearer | None:
        """The key that the request bears, if it is one of these; Anthropic's clients send it in `x-api-key`."""
        headers = Headers(scope=scope)
        scheme, _, key = _only(headers, "authorization").partition(" ")
        if scheme.lower() == "bearer" and (tenant := self.tenant(key)) is not None:
            return Bearer(key, tenant)
        key = _only(headers, "x-api-key")
        tenant = self.tenant(key) if is_anthropic(scope) else None
        return None if tenant is None else Bearer(key, tenant)

    def tenant(self, key: str) -> Tenant | None:
        """Whose key this is; a key that the file lists too is its tenant's, who may less."""
        listed = None if self._tenants is None else self._tenants.find(digest_of(key))
        return listed or (OPERATOR if self.match(key) else None)

    def match(self, key: str) -> bool:
        """Whether `key` is one of the operator's."""
        given = digest_of(key)
        # Every key is compared, so that the time taken reveals nothing.
        return any([secrets.compare_digest(given, digest) for digest in self._digests])


class KeyCheck:
    """Pure ASGI middleware: without a key only `open_paths` are answered, and only to GET and HEAD.

    Everything else gets a 401 with `message`, except `OPTIONS`, which gets an empty response. A key that came in
    `x-api-key` is passed on as a bearer token, for checks further in, and in place of a tenant's key one of the
    operator's. A tenant of some adapters is answered where `is_for_tenants` says of a path, and nowhere else, so that
    nothing is open to it whose answers are not made for it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys,
        message: str,
        open_paths: Collection[str] = (),
        is_for_tenants: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self.app = app
        self._keys = keys
        self._message = message
        self._open = frozenset(open_paths)
        self._is_for_tenants = is_for_tenants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._keys:
            await self.app(scope, receive, send)
            return
        await self._keys.refresh()
        method, path = scope.get("method"), asked_path(scope)
        is_open = path in self._open and method in ("GET", "HEAD")
        bearer = self._keys.find(scope)
        if bearer is not None and (bearer.tenant.may_all or is_open or self._is_for_tenants(path)):
            await self.app(self._borne(scope, bearer), receive, send)
        elif is_open:
            await self.app({**scope, TENANT: NOBODY}, receive, send)
        elif scope["type"] != "http":
            await WebSocketClose(_POLICY_VIOLATION)(scope, receive, send)
        elif bearer is not None:
            message = "this path is closed to keys of tenants that may not use every adapter"
            await error_response(403, message)(scope, receive, send)
        elif method == "OPTIONS":
            await Response(status_code=204)(scope, receive, send)
        else:
            await error_response(401, self._message)(scope, receive, send)

    def _borne(self, scope: Scope, bearer: Bearer) -> Scope:
        """The scope with a key as a bearer token, and beside it whose key was given, and its digest."""
        given = (b"authorization", b"x-api-key")
        kept = [header for header in scope["headers"] if header[0].lower() not in given]
        key = bearer.key if bearer.tenant is OPERATOR else self._keys.inner or bearer.key
        token = (b"authorization", b"Bearer " + key.encode("latin-1"))
        return {**scope, "headers": [*kept, token], KEY_DIGEST: digest_of(bearer.key), TENANT: bearer.tenant}


def _only(headers: Headers, name: str) -> str:
    """A header's value; empty unless it is given exactly once."""
    values = headers.getlist(name)
    return values[0] if len(values) == 1 else ""
