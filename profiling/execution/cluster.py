"""Jobs as tasks of a Ray cluster, which finds machines for them and repeats what a lost one had begun.

Ray does each task at least once: a machine that was frozen is taken for dead, and goes on with its task when it thaws,
beside the repetition. What jobs keep allows for that (`executor.py`). Nothing is bound to a machine, since Ray would
wait for a dead one for ever, but what gathers progress, which is beside the run where it can be.
"""

import logging
import os
import platform
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from ...adapters import InputError, Registry, RunError, ServerError
from ...serving.engines.local_model import VARIABLE
from ...serving.vllm.options import CPU_VARIABLES
from .executor import QUIET, Done, Failed, Job, OnProgress, Report, T, UnfitMachineError, attempt

LOOK_S = 0.5
"""How often a run looks at what became of its jobs."""
KNOCK_S = 10.0
"""So long a cluster may take to take up a connection."""
CLIENT_PORT = 10001
"""Where Ray Client listens by default."""
PROGRESS_S = 5.0
"""So long the progress of jobs is waited for."""
ALONE_S = 300.0
"""So long a run waits while all machines of the cluster are unfit for it: a fit one that was lost may be replaced."""
RETRIES = 10
"""So many times a job is repeated whose machine or process was lost: one that always ends its process is given up."""
QUICK = {
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "20000",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""A frozen machine is found out within half a minute; by default its tasks are repeated after seven. With three seconds
busy machines are taken for dead. A cluster that is there already must have these in its own environment."""
NODE_LABEL = "ray.io/node-id"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_Place = tuple[int, int]
"""The number of a run, and the place of a job in it."""


@dataclass(frozen=True)
class _Unfit:
    """A machine that a job was sent to, and why it cannot do it."""

    node: str
    machine: str
    reason: str


class RayCluster:
    """Does jobs on the cluster at `address`, that of this machine by default, or on one that is started for the run.

    `warn` is called with the machines that are left out, and why.

    Raises:
        ImportError: Ray is not installed.
        ServerError: there is no such cluster.
    """

    def __init__(self, address: str | None = None, *, warn: Callable[[str], None] = lambda message: None) -> None:
        self._warn = warn
        self._ray = _ray()
        self._unfit: dict[str, _Unfit] = {}
        self._runs = 0
        self._connect(address)
        self._gpus = bool(self._ray.cluster_resources().get("GPU"))
        self._progress = self._ray.remote(_Progress).options(num_cpus=0, **self._beside_run()).remote()

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    @property
    def workers(self) -> int:
        """How many jobs are done side by side."""
        return max(1, int(self._ray.cluster_resources().get("GPU" if self._gpus else "CPU", 1)))

    def check(self, registry: Registry) -> None:
        """Check that all machines can keep what they make in `registry`.

        Raises:
            InputError: it is a file, and there are several machines.
        """
        machines = {node["NodeManagerHostname"] for node in self._nodes()} - {platform.node()}
        if registry.location.path is not None and machines:
            raise InputError(
                f"{registry.location} is a file, which is for one machine, and the cluster has {len(machines)} more "
                f"({', '.join(sorted(machines)[:5])}): give --registry postgresql+psycopg://USER@HOST/DATABASE, and "
                "set TRAITROUTE_WEIGHTS and --runs to folders that all machines share"
            )

    def run(self, jobs: Sequence[Job[T]], on_progress: OnProgress) -> list[T]:
        """Do `jobs`, and return their results in their order.

        Raises:
            TraitRouteError: a job failed, its machine was lost again and again, or no machine can do it.
        """
        results: dict[int, T] = {}
        self._runs += 1
        running = {self._send(place, job): place for place, job in enumerate(jobs)}
        able = time.monotonic()
        try:
            while running:
                done, _ = self._ray.wait(list(running), timeout=LOOK_S)
                if done or self._has_fit():
                    able = time.monotonic()
                elif time.monotonic() - able > ALONE_S:
                    raise self._nobody()
                for (run, place), amount in self._latest().items():
                    # A machine that was frozen may still do a job of an earlier run.
                    if run == self._runs and place not in results:
                        on_progress(place, amount)
                for task in done:
                    place = running.pop(task)
                    said = self._result(task, jobs[place])
                    if isinstance(said, _Unfit):
                        self._leave_out(said)
                        running[self._send(place, jobs[place])] = place
                    else:
                        results[place] = said.result()  # pyright: ignore[reportArgumentType]
                        on_progress(place, jobs[place].size)
        except BaseException:
            for task in running:
                with suppress(Exception):
                    self._ray.cancel(task, force=True)
            raise
        return [results[place] for place in range(len(jobs))]

    def rest(self) -> None:
        """Nothing waits on this machine but what the cluster keeps there."""

    def _connect(self, address: str | None) -> None:
        ray = self._ray
        os.environ.update({name: value for name, value in QUICK.items() if name not in os.environ})
        settings: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "runtime_env": {"env_vars": _variables()},
        }
        try:
            if address is not None:
                _knock(address)
                ray.init(address, **settings)
                return
            try:
                ray.init("auto", **settings)
            except ConnectionError:
                ray.init("local", include_dashboard=False, **settings)
        except (OSError, RuntimeError, ValueError) as exc:
            raise ServerError(f"no Ray cluster at {address or 'this machine'}: {exc}") from exc

    def _latest(self) -> "dict[_Place, float]":
        """How far jobs are, as far as is known: what gathers it may be away, and nothing depends on it."""
        try:
            return self._ray.get(self._progress.take.remote(), timeout=PROGRESS_S)
        except self._ray.exceptions.RayError:
            return {}

    def _beside_run(self) -> Mapping[str, Any]:
        """What keeps an actor on the machine of the run, or of the head where the run is no part of the cluster."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # pyright: ignore[reportMissingImports]

        node = self._ray.get_runtime_context().get_node_id()
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True), "max_restarts": -1}

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _send(self, place: int, job: Job[Any]) -> Any:
        """Hand a job to the cluster: of a machine's memory at most what one has, since it would wait for more."""
        largest = max((node["Resources"].get("memory", 0.0) for node in self._nodes()), default=0.0)
        options: dict[str, Any] = {
            "num_cpus": 1,
            "num_gpus": 1 if self._gpus else 0,
            "memory": int(min(job.memory, largest)),
            "max_retries": RETRIES,
            "scheduling_strategy": "SPREAD",
            "name": job.name[:100],
        }
        if self._unfit:
            options["label_selector"] = {NODE_LABEL: f"!in({','.join(self._unfit)})"}
        return self._ray.remote(_do).options(**options).remote(job, (self._runs, place), self._progress)

    def _result(self, task: Any, job: Job[T]) -> "Done[T] | Failed | _Unfit":
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as exc:
            why = " ".join(_COLOURS.sub("", str(exc)).split())[:500]
            raise RunError(
                f"{job.name}: {why}; run the same command again, which goes on from what is finished"
            ) from exc

    def _leave_out(self, unfit: _Unfit) -> None:
        """Send no job to that machine any more.

        Raises:
            RunError: no other is left.
        """
        if unfit.node not in self._unfit:
            self._unfit[unfit.node] = unfit
            self._warn(f"machine {unfit.machine} is left out: {unfit.reason}")
        if not self._has_fit():
            raise self._nobody()

    def _has_fit(self) -> bool:
        """Whether a machine is there that was not found unfit; Ray itself waits for one until it comes."""
        if not self._unfit:
            return True
        needed = "GPU" if self._gpus else "CPU"
        # A head often has no processors, and no job is ever sent there.
        able = (node["NodeID"] for node in self._nodes() if node["Resources"].get(needed, 0) >= 1)
        return any(node not in self._unfit for node in able)

    def _nobody(self) -> RunError:
        reasons = "; ".join(f"{each.machine}: {each.reason}" for each in self._unfit.values())
        return RunError(f"no machine of the cluster can do this run: {reasons}")


def _ray() -> ModuleType:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as exc:
        raise ImportError("--on ray needs Ray: pip install 'traitroute[ray]'") from exc
    return ray


def _knock(address: str) -> None:
    """Check that something listens at an address: Ray itself tries for minutes.

    Raises:
        OSError: nothing does.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    socket.create_connection((place.hostname or "", place.port or CLIENT_PORT), timeout=KNOCK_S).close()


def _variables() -> dict[str, str]:
    """What the cluster's processes must find in their environment; a precision that is asked for is one for all."""
    imposed = {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}
    return {**CPU_VARIABLES, **QUIET, **imposed}


class _Progress:
    """How far jobs are, of which only the latest is of interest."""

    def __init__(self) -> None:
        self._latest: dict[_Place, float] = {}

    def put(self, place: "_Place", amount: float) -> None:
        self._latest[place] = amount

    def take(self) -> "dict[_Place, float]":
        latest, self._latest = self._latest, {}
        return latest


def _do(job: Job[T], place: _Place, progress: Any) -> "Done[T] | Failed | _Unfit":
    """Do a job on the machine that it was sent to."""
    report: Report = lambda amount: progress.put.remote(place, amount)  # noqa: E731
    try:
        said = attempt(job.here(), report)
    except UnfitMachineError as exc:
        return _unfit(str(exc))
    if isinstance(said, Failed) and said.kind is UnfitMachineError:
        return _unfit(said.message)
    return said


def _unfit(reason: str) -> _Unfit:
    import ray  # pyright: ignore[reportMissingImports]

    context = ray.get_runtime_context()
    return _Unfit(context.get_node_id(), f"{platform.node()} (node {context.get_node_id()[:8]})", reason)
