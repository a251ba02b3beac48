"""Executors do jobs, such as the training of an adapter; what these have made is kept where a profile looks for it.

A job may be done twice: a cluster repeats what a lost machine had begun, and a machine that was only frozen goes on
later. So results are kept under keys in the registry, or in folders that appear whole, the first of a key counts, and
no executor has to know what was done before. A job is pickled on its way, and its errors are sent as kind and message,
since many exceptions do not survive pickling.
"""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from ...adapters import InputError, Registry, RunError

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Environment of a process whose libraries keep their bars and notices to themselves."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Report = Callable[[float], None]
"""Called by a job with how much of it is done, in units of its own."""
OnProgress = Callable[[int, float], None]
"""Called with a job's place and how much of it is done."""


class UnfitMachineError(RunError):
    """A machine cannot do what a run asks of it, or would do it otherwise than the others."""


class Job(Protocol[T_co]):
    """A part of a profile's work."""

    @property
    def name(self) -> str:
        """What it does, for messages."""
        ...

    @property
    def size(self) -> float:
        """How much there is to do, in the units that it reports in."""
        ...

    @property
    def memory(self) -> int:
        """How many bytes it may take, by estimate."""
        ...

    @property
    def whole_gpu(self) -> bool:
        """Whether it takes a GPU to itself, where there is one."""
        ...

    def here(self) -> Self:
        """The job as another machine than that of the run does it.

        Raises:
            UnfitMachineError: this machine cannot, or would make something else of it.
        """
        ...

    def run(self, report: Report) -> T_co:
        """Do it, unless it was done."""
        ...


class Executor(Protocol):
    """Does jobs."""

    @property
    def workers(self) -> int:
        """How many jobs are done side by side elsewhere; 0 where they are done in this process."""
        ...

    def check(self, registry: Registry) -> None:
        """Check that all machines can keep what they make in `registry`.

        Raises:
            InputError: they cannot.
        """
        ...

    def run(self, jobs: Sequence[Job[T]], on_progress: OnProgress) -> list[T]:
        """Do `jobs`, and return their results in their order.

        Raises:
            TraitRouteError: a job failed, or what did it was lost; what was finished is kept.
        """
        ...

    def rest(self) -> None:
        """Give back the memory of what waits for jobs on this machine; a later `run` starts it anew."""
        ...


class InThisProcess:
    """Does one job after the other, in this process."""

    workers = 0

    def check(self, registry: Registry) -> None:
        """This process has the registry open."""

    def run(self, jobs: Sequence[Job[T]], on_progress: OnProgress) -> list[T]:
        """Do `jobs`."""
        results = []
        for place, job in enumerate(jobs):
            on_progress(place, 0)
            results.append(job.run(lambda amount, place=place: on_progress(place, amount)))
            on_progress(place, job.size)
        return results

    def rest(self) -> None:
        """Nothing waits."""


@dataclass(frozen=True)
class Done(Generic[T]):
    """A job's result."""

    value: T

    def result(self) -> T:
        """The result."""
        return self.value


@dataclass(frozen=True)
class Failed:
    """Why a job failed: the kind of the error, what it says, and where it was raised where that is a fault of ours."""

    kind: type[Exception]
    message: str

    def result(self) -> "object":
        """There is none.

        Raises:
            Exception: of the kind that the job raised.
        """
        raise self.kind(self.message)


_KINDS = (UnfitMachineError, InputError, RunError, ImportError, OSError)


def attempt(job: Job[T], report: Report) -> "Done[T] | Failed":
    """Do `job`, and return its result or why it failed."""
    try:
        report(0)
        return Done(job.run(report))
    except Exception as exc:  # noqa: BLE001 - raised again in the process that asked for the job
        kind = next((kind for kind in _KINDS if isinstance(exc, kind)), None)
        if kind is not None:
            return Failed(kind, f"{job.name}: {exc}")
        return Failed(RuntimeError, f"{job.name}:\n{''.join(traceback.format_exception(exc))}")
