"""All upstreams: checked every two seconds, and one of them chosen for each request."""

import asyncio
import hashlib
import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ...adapters import Adapter
from .options import GatewayOptions
from .upstream import Upstream

CHECK_EVERY_S = 2.0
CHECK_SOON_S = 0.25
"""How often it is looked whether any upstream is there, while none is."""
SLACK = 2
"""How many more requests than the least busy upstream one may have and still keep its conversations."""


@dataclass(frozen=True)
class Target:
    """An upstream that can answer, the body's fields that it needs changed (None: none), and the adapter asked for."""

    upstream: Upstream
    fields: Mapping[str, Any] | None = None
    adapter: str | None = None


class Fleet:
    """The upstreams of one gateway; a `transport` is asked in place of the network."""

    def __init__(self, options: GatewayOptions, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.upstreams = [Upstream(url, options, transport) for url in options.upstreams]

    async def start(self) -> None:
        """Check every upstream once, and then again and again until `stop`."""
        await self._check()
        self._watch = asyncio.create_task(self._keep_checking())

    async def stop(self) -> None:
        """Stop checking and close all connections."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await asyncio.gather(*(upstream.close() for upstream in self.upstreams))

    def healthy(self) -> list[Upstream]:
        """The upstreams in rotation."""
        return [upstream for upstream in self.upstreams if upstream.healthy]

    def recent(self) -> frozenset[str]:
        """The adapters that upstreams in rotation were last asked for, as many at each as it has slots."""
        return frozenset[str]().union(*(upstream.recent.names() for upstream in self.healthy()))

    def offer(self, adapters: Sequence[Adapter], withheld: Collection[str]) -> None:
        """Replace the adapters that the registry offers, and the names of those that it withholds."""
        for upstream in self.upstreams:
            upstream.offer(adapters, withheld)

    def holding(self, adapter: Adapter) -> list[Target]:
        """The upstreams that have the adapter, and are not known to answer as the base model when asked for it."""
        proven = [u for u in self.listing_adapter(adapter) if (proof := u.proof(adapter)) and not proof.is_idle]
        named = [(upstream, upstream.name_of(adapter)) for upstream in proven]
        return [Target(u, u.dialect.fields(name, u.base), adapter.name) for u, name in named if name is not None]

    def listing_adapter(self, adapter: Adapter) -> list[Upstream]:
        """The upstreams that say they have the adapter, whether or not they were asked for a proof."""
        return [upstream for upstream in self.healthy() if upstream.name_of(adapter) is not None]

    def with_base(self) -> list[Target]:
        """The upstreams whose base model can be named."""
        return [Target(u, {"model": u.base}) for u in self.healthy() if u.base is not None]

    def listing(self, model: str) -> list[Target]:
        """The upstreams that list `model`, which is no adapter of the registry."""
        asked = [(upstream, upstream.other_fields(model)) for upstream in self.healthy()]
        return [Target(upstream, fields) for upstream, fields in asked if fields is not None]

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S if self.healthy() else CHECK_SOON_S)
            await self._check()

    async def _check(self) -> None:
        await asyncio.gather(*(upstream.check() for upstream in self.upstreams))


def choose(targets: Collection[Target], conversation: bytes | None) -> Target:
    """The least busy target; among those about as idle, the one that had the conversation before."""
    least = min(target.upstream.outstanding for target in targets)
    if conversation is None:
        idle = [target for target in targets if target.upstream.outstanding == least]
        return random.choice(idle)
    near = [target for target in targets if target.upstream.outstanding <= least + SLACK]
    # Rendezvous hashing: an upstream that leaves or comes moves only its own conversations.
    return max(near, key=lambda t: hashlib.blake2b(conversation + t.upstream.url.encode()).digest())


def conversation_key(request: Mapping[str, Any]) -> bytes | None:
    """What stays the same through a conversation: all up to the first user turn, or a prompt's beginning."""
    start: Any = request.get("prompt", request.get("input"))
    messages = request.get("messages", start if isinstance(start, list) else None)
    if isinstance(messages, list):
        roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
        end = roles.index("user") + 1 if "user" in roles else 1
        start = messages[:end]
    elif isinstance(start, str):
        start = start[:1024]
    if start is None:
        return None
    return hashlib.blake2b(json.dumps([request.get("model"), start]).encode()).digest()
