"""Limits of what one API key may ask of our own routes: so many requests in a time, and so many at once.

Inference is not counted here: the engine's queue limits it, and a proxy that counts tokens does better. Counts are kept
in each server process for itself. They are off unless the operator sets them, for every key by the environment, or for
a tenant's in its file.
"""

import math
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from ...adapters import InputError
from .errors import error_response
from .keys import KEY_DIGEST
from .tenants import Concurrent, Rate, tenant_of

RATE_VARIABLE, CONCURRENT_VARIABLE = "TRAITROUTE_KEY_RATE", "TRAITROUTE_KEY_CONCURRENT"
RETRY_AFTER_S = 1


@dataclass
class KeyLimits:
    """Each key may ask at `rate` (as 120/minute), and have `concurrent` requests under way, where its tenant has no
    other limits (None: as it likes). Without keys all askers are one."""

    rate: str | None = None
    concurrent: int | None = None
    _under_way: Counter[bytes] = field(default_factory=Counter, init=False, repr=False)

    @classmethod
    def from_environment(cls) -> Self:
        """The limits that the operator set.

        Raises:
            InputError: one is no limit.
        """
        given, most = (os.environ.get(name, "").strip() for name in (RATE_VARIABLE, CONCURRENT_VARIABLE))
        try:
            rate = TypeAdapter(Rate).validate_python(given) if given else None
        except ValidationError as exc:
            raise InputError(
                f"{RATE_VARIABLE} is {given!r}: give a number for each second, minute, hour or day, as 600/minute"
            ) from exc
        try:
            concurrent = TypeAdapter(Concurrent).validate_python(int(most)) if most else None
        except ValueError as exc:
            raise InputError(f"{CONCURRENT_VARIABLE} is {most!r}: give a number from 1") from exc
        limits = cls(rate, concurrent)
        if rate is not None:
            limits._windows  # noqa: B018 - a missing package is said now
        return limits

    def around(self, app: ASGIApp) -> ASGIApp:
        """The app of one route, within these limits."""

        async def limited(scope: Scope, receive: Receive, send: Send) -> None:
            tenant, key = tenant_of(scope), scope.get(KEY_DIGEST, b"")
            rate, most = tenant.rate or self.rate, tenant.concurrent or self.concurrent
            if most is not None and self._under_way[key] >= most:
                message = f"{most} requests with this key are under way here, which is the most: wait for one"
                await _refusal(message, RETRY_AFTER_S)(scope, receive, send)
            elif rate is not None and (wait_s := await self._count(rate, key)) is not None:
                message = f"this key may ask here at {rate}, and did: wait {wait_s} s"
                await _refusal(message, wait_s)(scope, receive, send)
            else:
                self._under_way[key] += 1
                try:
                    await app(scope, receive, send)
                finally:
                    self._under_way[key] -= 1
                    if not self._under_way[key]:
                        del self._under_way[key]

        return limited

    async def _count(self, rate: str, key: bytes) -> int | None:
        """Count a request; the seconds to wait where it is one too many."""
        from limits import parse

        item, name = parse(rate), key.hex()
        if await self._windows.hit(item, name):
            return None
        stats = await self._windows.get_window_stats(item, name)
        return max(1, math.ceil(stats.reset_time - time.time()))

    @cached_property
    def _windows(self) -> Any:
        try:
            from limits.aio.storage import MemoryStorage
            from limits.aio.strategies import SlidingWindowCounterRateLimiter
        except ImportError as exc:
            raise ImportError("a rate is limited with the extra: pip install 'traitroute[tenants]'") from exc
        return SlidingWindowCounterRateLimiter(MemoryStorage())


def _refusal(message: str, wait_s: int) -> ASGIApp:
    return error_response(429, message, headers={"retry-after": str(wait_s)})
