"""Work off the event loop within a time budget, in a few threads of our own.

A thread cannot be stopped, so work that ran over its time still holds one. When all are held this way
nothing more is accepted, and the event loop's default executor, which the app needs, is never touched.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

WORKERS = 2
"""Routing computes under the interpreter's lock: of 500 requests at once, four threads serve fewer in time."""
WAITING = 1024


class SaturatedError(Exception):
    """Every thread is held by work that ran over its time, or too much work waits."""


class TimeBudget:
    """Runs work in at most `workers` threads, with at most `waiting` pieces unfinished."""

    def __init__(self, *, workers: int = WORKERS, waiting: int = WAITING) -> None:
        self._workers = workers
        self._waiting = waiting
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="traitroute")
        self._lock = threading.Lock()
        self._unfinished = 0
        self._overdue = 0

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Return what `work` returns.

        Raises:
            TimeoutError: it took longer than `seconds`, waiting for a thread included.
            SaturatedError: it was not begun.
        """
        if self._overdue >= self._workers or self._unfinished >= self._waiting:
            raise SaturatedError
        future = self._threads.submit(work)
        self._count(unfinished=1)
        future.add_done_callback(lambda _: self._count(unfinished=-1))
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            # Where the event loop was late and not the work, what it returned is there to be used.
            if future.done() and not future.cancelled():
                return future.result()
            raise
        finally:
            self._leave(future)

    def _leave(self, future: Future[T]) -> None:
        if future.done() or future.cancel():
            return
        self._count(overdue=1)
        future.add_done_callback(lambda _: self._count(overdue=-1))

    def _count(self, *, unfinished: int = 0, overdue: int = 0) -> None:
        with self._lock:
            self._unfinished += unfinished
            self._overdue += overdue
