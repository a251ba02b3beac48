"""One answer in the making: what the worker thread writes and the event loop reads."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

from ...adapters import Adapter, RunError

Finish = Literal["stop", "length"]


class GenerationError(RunError):
    """An answer could not be completed."""


@dataclass(frozen=True)
class Order:
    """What is to be generated: `adapter` None is the base model; up to `max_tokens` after `prompt`."""

    prompt: list[int]
    adapter: Adapter | None
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True)
class Piece:
    """Some text of an answer; the last piece has its `finish`, or an `error`.

    `tokens` are all that were generated so far, without an end-of-turn token.
    """

    text: str
    tokens: int
    finish: Finish | None = None
    error: str = ""

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or bool(self.error)


@dataclass(eq=False)
class Generation:
    """The pieces of the answer to `order`; must be made on the event loop that reads it.

    `wake` is called after an abort, so that the worker sees it.
    """

    order: Order
    wake: Callable[[], None] = lambda: None
    aborted: bool = False
    since: float = field(default_factory=time.monotonic)
    _pieces: asyncio.Queue[Piece] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def put(self, piece: Piece) -> None:
        """Hand over a piece; called in the worker thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def abort(self) -> None:
        """Nobody wants the rest: the row is freed before the next token."""
        if not self.aborted:
            self.aborted = True
            self._pieces.put_nowait(Piece("", 0, error="aborted"))
            self.wake()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """The pieces as they come.

        Raises:
            GenerationError: the answer was aborted or could not be completed.
        """
        while True:
            piece = await self._pieces.get()
            if piece.error:
                raise GenerationError(piece.error)
            yield piece
            if piece.last:
                return
