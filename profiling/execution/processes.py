"""Jobs in processes of this machine, of a thread or more each: two of one thread do more than one of two threads.

A process takes one job after the other, so that it loads libraries and models once. It is replaced where it has grown
beyond its share of the memory: the allocator that doubles the speed on CPUs gives nothing back (docs/decisions.md).
Jobs begin only while all that are under way fit into the memory that is free, by their own estimates.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

from ...adapters import Registry, RunError
from ...serving.vllm.options import CPU_VARIABLES
from .executor import QUIET, Done, Failed, Job, OnProgress, T, attempt

ENDING_S = 5.0
"""So long a process that was told to end may take before it is killed."""


Pipe: TypeAlias = Any
"""An end of a `multiprocessing.Pipe`, whose class depends on the system."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Pipe
    slot: int
    place: int | None = None
    memory: int = 0


class LocalProcesses:
    """Does jobs in up to `workers` processes of this machine; `warn` is called where memory allows fewer at a time."""

    def __init__(self, workers: int, *, warn: Callable[[str], None] = lambda message: None) -> None:
        self.workers = workers
        self._warn = warn
        self._warned = False
        self._alive: list[_Worker] = []

    def __enter__(self) -> "LocalProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def check(self, registry: Registry) -> None:
        """Processes of this machine share whatever registry there is."""

    def run(self, jobs: Sequence[Job[T]], on_progress: OnProgress) -> list[T]:
        """Do `jobs`, and return their results in their order.

        Raises:
            TraitRouteError: a job failed, or its process was ended; no job is left running.
        """
        results: dict[int, T] = {}
        waiting = deque(range(len(jobs)))
        budget = free_memory() + sum(memory_of(worker.process.pid) for worker in self._alive)
        try:
            while len(results) < len(jobs):
                self._begin(jobs, waiting, budget)
                self._hear(jobs, results, on_progress)
        except BaseException:
            self._kill()
            raise
        return [results[place] for place in range(len(jobs))]

    def rest(self) -> None:
        """End the processes."""
        for worker in self._alive:
            worker.pipe.close()
        for worker in self._alive:
            worker.process.join(ENDING_S)
        self._kill()

    def _begin(self, jobs: Sequence[Job[Any]], waiting: deque[int], budget: int) -> None:
        """Give jobs to processes that have none, as long as there is memory for them."""
        while waiting:
            busy, job = self._busy(), jobs[waiting[0]]
            if len(busy) >= min(self.workers, (job.whole_gpu and len(_gpus())) or self.workers):
                return
            if busy and sum(worker.memory for worker in busy) + job.memory > budget:
                self._say(job, len(busy), budget)
                return
            worker = next((each for each in self._alive if each.place is None), None) or self._start(budget)
            worker.place, worker.memory = waiting.popleft(), job.memory
            worker.pipe.send(job)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._alive if worker.place is not None]

    def _say(self, job: Job[Any], busy: int, budget: int) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"{job.name} may take {_gib(job.memory)}, and {_gib(budget)} are free here: {busy} of "
                f"{self.workers} processes at a time"
            )

    def _hear(self, jobs: Sequence[Job[T]], results: dict[int, T], on_progress: OnProgress) -> None:
        """Wait for what a process says: how far its job is, or what became of it."""
        busy: dict[Pipe, _Worker] = {worker.pipe: worker for worker in self._busy()}
        for pipe in connection.wait(list(busy)):
            worker = busy[pipe]
            assert worker.place is not None
            try:
                said, stays = worker.pipe.recv()
            except (EOFError, ConnectionError):
                raise self._lost(worker, jobs[worker.place]) from None
            if isinstance(said, Done | Failed):
                results[worker.place] = said.result()  # pyright: ignore[reportArgumentType]
                on_progress(worker.place, jobs[worker.place].size)
                worker.place = None
                if not stays:
                    self._alive.remove(worker)
                    worker.process.join()
            else:
                on_progress(worker.place, said)

    def _lost(self, worker: _Worker, job: Job[Any]) -> RunError:
        worker.process.join(ENDING_S)
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        cure = "that is how a system ends what takes too much memory: give fewer processes (--on local:1), or "
        return RunError(
            f"{job.name}: its process ended ({how}); {cure if code == -signal.SIGKILL else ''}run the same command "
            "again, which goes on from what is finished"
        )

    def _start(self, budget: int) -> _Worker:
        slot = min(set(range(self.workers)) - {worker.slot for worker in self._alive})
        ours, theirs = connection.Pipe()
        share = budget // (2 * self.workers)
        process = get_context("spawn").Process(target=_serve, args=(theirs, share), name=f"traitroute-{slot}")
        with _environment(_variables(slot, self.workers)):
            process.start()
        theirs.close()
        worker = _Worker(process, ours, slot)
        self._alive.append(worker)
        return worker

    def _kill(self) -> None:
        """Kill the processes, and those that they started, such as an engine's own."""
        for worker in self._alive:
            if worker.process.is_alive() and worker.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.killpg(worker.process.pid, signal.SIGKILL)
                worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._alive.clear()


def _serve(pipe: Pipe, share: int) -> None:
    """Do the jobs that come through `pipe`, until it ends, or this process has grown beyond `share` bytes."""
    # A group of its own: the run ends it, and not the terminal, whose Ctrl-C would leave each job half told.
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stays = True
    while stays:
        try:
            job = pipe.recv()
        except EOFError:
            return
        said = attempt(job, lambda amount: pipe.send((amount, True)))
        stays = memory_of(os.getpid()) < share
        pipe.send((said, stays))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


def _variables(slot: int, workers: int) -> dict[str, str]:
    """What a process must find in its environment when it starts: its threads, its allocator, its GPU."""
    from ...serving.engines.local_model import VARIABLE, fastest_precision

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = {"OMP_NUM_THREADS": str(max(1, cores // workers)), **CPU_VARIABLES, **QUIET}
    own = {name: os.environ.get(name, value) for name, value in wanted.items()}
    own[VARIABLE] = fastest_precision()
    if gpus := _gpus():
        own["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return own


def _gpus() -> list[str]:
    import torch

    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in visible.split(",") if each]
    return [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def memory_of(process: int | None) -> int:
    """The bytes of memory that a process holds; 0 where it is gone."""
    import psutil

    with suppress(psutil.Error):
        return psutil.Process(process).memory_info().rss
    return 0


def free_memory(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that processes may still take: of the machine, and of the control group that a container is limited by."""
    import psutil

    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):
        limit, used = (int((groups / name).read_text()) for name in ("memory.max", "memory.current"))
        # Cached files are given back when they are in the way.
        statistics = dict(line.split() for line in (groups / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(statistics["inactive_file"]))
    return max(free, 0)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
