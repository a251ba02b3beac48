"""The executor that a user names: `local`, `local:2`, `ray`, `ray:HEAD:6379`, `ray://HEAD:10001`."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...adapters import InputError
from .cluster import RayCluster
from .executor import Executor, InThisProcess
from .processes import LocalProcesses

_LOCAL = re.compile(r"local(?::([1-9][0-9]{0,3}))?")
_RAY = re.compile(r"ray(?::([\w.\[\]:-]+:\d+)|://[\w.\[\]:-]+)?")
MOST = 256
"""Processes on one machine: beyond it a number is a slip."""


def check_place(place: str) -> None:
    """Check that `place` names an executor.

    Raises:
        InputError: it does not.
    """
    local = _LOCAL.fullmatch(place)
    if not _RAY.fullmatch(place) and (local is None or int(local[1] or 1) > MOST):
        raise InputError(
            f"--on {place!r}: wanted local (this process), local:N (N processes of this machine, {MOST} at most), ray "
            "(the Ray cluster of this machine), ray:HOST:6379 (one that this machine is part of) or ray://HOST:10001 "
            "(one that it is not part of)"
        )


@contextmanager
def open_executor(place: str, *, warn: Callable[[str], None] = lambda message: None) -> Iterator[Executor]:
    """The executor that `place` names, until the block ends; `warn` is called with what keeps it from all it could do.

    Raises:
        InputError: it names none.
        ImportError: Ray is wanted, and not installed.
        ServerError: there is no such cluster.
    """
    check_place(place)
    if ray := _RAY.fullmatch(place):
        address = place if "://" in place else ray[1]
        with RayCluster(address, warn=warn) as cluster:
            yield cluster
        return
    local = _LOCAL.fullmatch(place)
    workers = int(local[1] or 1) if local else 1
    if workers == 1:
        yield InThisProcess()
        return
    with LocalProcesses(workers, warn=warn) as processes:
        yield processes
