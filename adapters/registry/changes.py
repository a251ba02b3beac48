"""When a registry may have changed, for servers that follow it.

A file is looked at again and again, which costs microseconds. A database tells everybody who listens (LISTEN and
NOTIFY), so that a thousand servers do not ask it every second; a slow look stands behind that, for a notification that
a broken network lost.
"""

import asyncio
import random
from contextlib import suppress
from typing import Any, Protocol

from .postgresql import CHANNEL

LOOK_S = 30.0
RETRY_S = 1.0
SPREAD_S = 0.2
"""Listeners are told at one moment; spread over this they do not read at one moment, and a burst is read once."""


class Changes(Protocol):
    """Waits on the event loop."""

    async def wait(self) -> None:
        """Return when the registry may have changed, or cannot be reached."""
        ...

    async def close(self) -> None:
        """Stop waiting for good."""
        ...


class Polling:
    """Looks every `every_s` seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s

    async def wait(self) -> None:
        """Return when it is time to look."""
        await asyncio.sleep(self._every_s)

    async def close(self) -> None:
        """Hold nothing."""


class Listening:
    """Listens on a connection of its own, made with psycopg's `parameters`, and anew where it breaks."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters
        self._connection: Any = None

    async def wait(self) -> None:
        """Return soon after a notification, at the latest after `LOOK_S`; at once where listening has just begun."""
        import psycopg

        try:
            if self._connection is None:
                # What was written before the first LISTEN is read now.
                async with asyncio.timeout(LOOK_S):
                    await self._connect()
                return
            async for _ in self._connection.notifies(timeout=LOOK_S, stop_after=1):
                await asyncio.sleep(random.uniform(0, SPREAD_S))
        except (psycopg.Error, OSError):
            await self.close()
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.0))

    async def close(self) -> None:
        """Close the connection."""
        import psycopg

        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error, OSError):
                await connection.close()

    async def _connect(self) -> None:
        from psycopg import AsyncConnection

        # Set at once, so that `close` finds it however this ends.
        self._connection = await AsyncConnection.connect(**self._parameters, autocommit=True)
        await self._connection.execute(f"LISTEN {CHANNEL}")
