"""Work off the event loop within a time budget, in a few threads of our own.

A thread cannot be stopped, so work that ran over its time still holds one. When all are held this way nothing more is
accepted, and what waits is given up. The event loop's default executor, which the app needs, is never used.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

WORKERS = 2
"""Routing computes under the interpreter's lock: of 500 requests at once, four threads serve fewer in time."""
WAITING = 1024
WAIT_S = 2.0
"""How long work waits for a thread; in a burst the server's own work on a request takes longer (docs/serving.md)."""


class SaturatedError(Exception):
    """Every thread is held by work that ran over its time, or by other work for too long."""


class TimeBudget:
    """Runs work in at most `workers` threads.

    At most `waiting` tasks are unfinished at a time, and none waits longer than `wait_s` for a thread.
    """

    def __init__(self, *, workers: int = WORKERS, waiting: int = WAITING, wait_s: float = WAIT_S) -> None:
        self._workers = workers
        self._waiting = waiting
        self._wait_s = wait_s
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="traitroute")
        self._lock = threading.Lock()
        self._unfinished = 0
        self._overdue = 0

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Return what `work` returns.

        Raises:
            TimeoutError: it ran for longer than `seconds`.
            SaturatedError: it was not begun.
        """
        if self._saturated or self._unfinished >= self._waiting:
            raise SaturatedError
        task = _Task(work)
        future = self._threads.submit(task)
        self._count(unfinished=1)
        future.add_done_callback(lambda _: self._count(unfinished=-1))
        awaited, waits_until = asyncio.wrap_future(future), time.monotonic() + self._wait_s
        try:
            while True:
                await asyncio.wait([awaited], timeout=task.left_s(seconds))
                # Where the event loop was late and not the work, what it returned is there to be used.
                if future.done():
                    return await awaited if awaited.done() else future.result()
                if task.left_s(seconds) <= 0:
                    raise TimeoutError
                if task.waits and (self._saturated or time.monotonic() > waits_until):
                    raise SaturatedError
        finally:
            awaited.cancel()
            self._leave(future)

    @property
    def _saturated(self) -> bool:
        return self._overdue >= self._workers

    def _leave(self, future: Future[T]) -> None:
        if future.done() or future.cancel():
            return
        self._count(overdue=1)
        future.add_done_callback(lambda _: self._count(overdue=-1))

    def _count(self, *, unfinished: int = 0, overdue: int = 0) -> None:
        with self._lock:
            self._unfinished += unfinished
            self._overdue += overdue


class _Task(Generic[T]):
    """Work that notes when a thread takes it up."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._began: float | None = None

    def __call__(self) -> T:
        self._began = time.monotonic()
        return self._work()

    @property
    def waits(self) -> bool:
        """Whether no thread has taken it up."""
        return self._began is None

    def left_s(self, seconds: float) -> float:
        """How much is left of the `seconds` that it may run."""
        return seconds if self._began is None else self._began + seconds - time.monotonic()
