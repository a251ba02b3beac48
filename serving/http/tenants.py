"""Tenants: which API keys use which adapters, read from a file that is watched.

The file is TOML, named by `TRAITROUTE_TENANTS`, with a table for each tenant:

    [tenants.kitchen]
    keys = ["sha256:9b74c9897bac770ffc029102a200c5de6f8e7a7c5a2d6a4b3f1c0d9e8f7a6b5c"]
    adapters = ["chef"]          # by name; ["*"] is every adapter, [] none
    tags = ["cooking"]           # and every adapter with one of these tags
    rate = "120/minute"          # of requests to our own routes, each key
    concurrent = 8               # of them at a time, each key
    holdback = 0.05              # of its conversations, which base answers as a control group
    samples = true               # a few of its texts may be kept, where the operator samples (traffic/sampling.py)

It holds hashes of keys, never keys. TOML refuses a key of a table that is given twice, and has no references.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import time
import tomllib
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.types import Scope

from ...adapters import InputError, Name

VARIABLE = "TRAITROUTE_TENANTS"
TENANT = "traitroute.tenant"
"""The scope's entry with the tenant whose key the request bears; absent where the server has no keys."""
EVERY = "*"
EVERY_S = 1.0
"""How often the file is read again, at most."""
ANSWER_S = 2.0
"""How long a request waits for the file; a drive may hang."""
MOST_BYTES = 2**20
_PREFIX = "sha256:"
_RATE = r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$"
_logger = logging.getLogger(__name__)

Rate = Annotated[str, Field(pattern=_RATE)]
Concurrent = Annotated[int, Field(strict=True, ge=1)]
_Hash = Annotated[str, Field(pattern=rf"^{_PREFIX}[0-9a-f]{{64}}$")]
_Model = Annotated[str, Field(min_length=1, max_length=1024)]


class Tenant(BaseModel):
    """Who bears some keys, and which adapters they may use: those in `adapters`, and those with one of `tags`.

    `rate` and `concurrent` limit the requests of each key to our own routes, and `holdback` is the share of
    conversations that base answers (None: as the server does for every key). Texts of its requests may be kept as
    `samples` only where it says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    keys: tuple[_Hash, ...] = ()
    adapters: frozenset[_Model] = frozenset()
    tags: frozenset[Name] = frozenset()
    rate: Rate | None = None
    concurrent: Concurrent | None = None
    holdback: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] | None = None
    samples: Annotated[bool, Field(strict=True)] = False

    @property
    def may_all(self) -> bool:
        """Whether every adapter, path and model is open to this tenant."""
        return EVERY in self.adapters

    def may_use(self, adapter: str, tags: Collection[str] = ()) -> bool:
        """Whether an adapter with these tags is open to this tenant; who may use it may use its replacements."""
        named = adapter in self.adapters or adapter.partition("@")[0] in self.adapters
        return self.may_all or named or not self.tags.isdisjoint(tags)


OPERATOR = Tenant(adapters=frozenset({EVERY}))
"""Who bears a key that the server itself was given, or asks a server without keys."""
NOBODY = Tenant(name="nobody")
"""Who bears no key where one is wanted, at the paths that are open all the same."""


def tenant_of(scope: Scope) -> Tenant:
    """The tenant whose key a request bears."""
    return scope.get(TENANT, OPERATOR)


def digest_of(key: str) -> bytes:
    """The SHA-256 of a key."""
    return hashlib.sha256(key.encode()).digest()


def new_key() -> str:
    """A key of 256 random bits: a hash of it, unlike one of a chosen word, gives nothing away."""
    return f"tr-{secrets.token_urlsafe(32)}"


def key_hash(key: str) -> str:
    """What the file holds of a key."""
    return _PREFIX + digest_of(key).hex()


def read_tenants(text: str) -> dict[str, Tenant]:
    """Read a file's tenants, by name.

    Raises:
        InputError: it is no TOML, a table does not fit, or two tenants have one key.
    """
    try:
        given = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise InputError(f"it is not TOML: {exc}") from exc
    if given.keys() - {"tenants"} or not isinstance(given.get("tenants", {}), dict):
        raise InputError("it may hold tables [tenants.NAME] and nothing else")
    tenants = {name: _tenant(name, table) for name, table in given.get("tenants", {}).items()}
    holder: dict[str, str] = {}
    for name, tenant in tenants.items():
        for key in tenant.keys:
            if holder.setdefault(key, name) != name:
                raise InputError(f"the tenants {holder[key]} and {name} have the same key: give each its own")
    if any(tenant.rate for tenant in tenants.values()) and find_spec("limits") is None:
        raise InputError("a rate is limited with the extra: pip install 'traitroute[tenants]'")
    return tenants


def _tenant(name: str, table: object) -> Tenant:
    if not isinstance(table, dict) or "name" in table:
        raise InputError(
            f"tenants.{name} must be a table of keys, adapters, tags, rate, concurrent, holdback and samples"
        )
    if not table.keys() & {"adapters", "tags"}:
        raise InputError(
            f'tenants.{name} says nothing of what it may use: give adapters = ["NAME"] or tags = ["TAG"]; ["*"] is '
            "every adapter, [] none"
        )
    try:
        TypeAdapter(Name).validate_python(name)
        return Tenant.model_validate({**table, "name": name})
    except ValidationError as exc:
        fault = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(["tenants", name, *map(str, fault["loc"])])
        raise InputError(f"{where}: {fault['msg'].removeprefix('Value error, ')}") from exc


class TenantsFile:
    """The tenants in the file at `path`, as it was when it could last be read whole.

    Raises:
        InputError: it cannot be read at first. Later that is only logged, so that a slip opens nothing and shuts nobody
            out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""
        self._by_digest: Mapping[bytes, Tenant] = {}
        self._next, self._reading, self._warned_of = 0.0, False, ""
        self._read()

    @classmethod
    def from_environment(cls) -> Self | None:
        """The file that the environment names, if it does.

        Raises:
            InputError: it cannot be read.
        """
        path = os.environ.get(VARIABLE, "").strip()
        return cls(Path(path)) if path else None

    def find(self, digest: bytes) -> Tenant | None:
        """The tenant of a key, by the key's digest."""
        # A digest is nothing that could be approached by the time that looking it up takes.
        return self._by_digest.get(digest)

    async def refresh(self) -> None:
        """Read the file again, unless that was done within a second; trouble is logged once."""
        now = time.monotonic()
        if now < self._next or self._reading:
            return
        self._next, self._reading = now + EVERY_S, True
        reading = asyncio.ensure_future(asyncio.to_thread(self._read_again))
        await asyncio.wait({reading}, timeout=ANSWER_S)
        if not reading.done():
            self._warn(f"no answer for {ANSWER_S:g} s")

    def _read_again(self) -> None:
        try:
            if self._read():
                _logger.warning("traitroute: tenants: %s changed and is in force", self._path)
            self._warned_of = ""
        except InputError as exc:
            self._warn(str(exc))
        finally:
            self._reading = False

    def _read(self) -> bool:
        """Read the file; whether it had changed."""
        try:
            with self._path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
            text = content.decode()
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise InputError(f"the tenants in {self._path} ({VARIABLE}) cannot be read: {why}") from exc
        if len(content) > MOST_BYTES:
            raise InputError(f"the tenants in {self._path} ({VARIABLE}) take more than {MOST_BYTES} bytes")
        if text == self._text:
            return False
        try:
            tenants = read_tenants(text)
        except InputError as exc:
            raise InputError(f"the tenants in {self._path} ({VARIABLE}) cannot be read: {exc}") from exc
        hashed = {key: tenant for tenant in tenants.values() for key in tenant.keys}
        self._by_digest = {bytes.fromhex(key.removeprefix(_PREFIX)): tenant for key, tenant in hashed.items()}
        self._text = text
        return True

    def _warn(self, message: str) -> None:
        if message != self._warned_of:
            _logger.warning("traitroute: %s; what was read before stays in force", message)
        self._warned_of = message
