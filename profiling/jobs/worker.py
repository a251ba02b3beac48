"""A worker: finds adapters that wait to be measured, does their jobs, and takes over those of workers that died.

DBOS keeps the queue. What it leaves to its own cloud service is done here: each worker holds a lock for as long as it
lives, and whoever can take the lock of another knows that it is dead.
"""

import hashlib
import logging
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID, error
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from ...adapters import Adapter, DatabaseError, Registry, RegistryError
from ...adapters.registry.database import translated_errors
from ...adapters.registry.postgresql import open_database
from ...serving.jobs.board import APPLICATION, APPLICATION_VERSION, QUEUE, jobs_url
from ...serving.lift.canary import take_steps
from .comparing import COMPARING, ComparingSteps, Rounds
from .locks import Held, Locks
from .steps import RowSteps, pending
from .workflow import job_id, register_workflow

LOOK_S = 1.0
"""Pause between two checks of the registry and of the other workers."""
RARELY_S = 300.0
"""Pause between two looks at how canaries do, whose outcomes count an hour after the first, and at recurring kinds."""
LOST_S = 10.0
"""A job that was taken from the queue begins well within this time."""
_logger = logging.getLogger(__name__)


@dataclass
class Worker:
    """Does jobs by `steps`, up to `at_once` at a time, until `stopping` is set; `say` reports events to people.

    With `comparing` it compares adapters on recurring requests too.
    """

    registry: Registry
    steps: RowSteps
    locks: Locks
    at_once: int = 1
    comparing: ComparingSteps | None = None
    say: Callable[[str], None] = _logger.info
    stopping: threading.Event = field(default_factory=threading.Event)
    name: str = field(default_factory=lambda: f"{platform.node()}-{uuid.uuid4().hex[:8]}")
    _free_since: dict[str, float] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)
    _rounds: Rounds | None = None
    _revision: int | None = None
    _rarely_at: float = float("-inf")

    def run(self) -> None:
        """Work until `stopping` is set; then the process must end, and with it the jobs under way.

        Raises:
            RegistryError: the registry holds no profile that rows could join.
            DatabaseError: the database with the jobs cannot be used.
        """
        if self.registry.latest_profile() is None:
            raise RegistryError(
                f"{self.registry.location} holds no profile yet, which names the tasks to measure on: "
                "run `traitroute profile` first"
            )
        held = self.locks.hold(_lock_of(self.name))
        assert held is not None, "a name of 32 random bits was taken"
        with self._translated_errors():
            self._launch()
        self._look_around(held)

    def _launch(self) -> None:
        DBOS(config=self._config())
        self._measure_row = register_workflow(self.steps, self._running)
        self._rounds = Rounds(self.comparing, self.say) if self.comparing else None
        if self._rounds:
            self._rounds.register(self._running)
        # A round waits for a worker that was told to compare.
        DBOS.listen_queues([QUEUE, COMPARING] if self._rounds else [QUEUE])
        DBOS.launch()
        settings: dict[str, Any] = {"polling_interval_sec": LOOK_S, "on_conflict": "always_update"}
        DBOS.register_queue(QUEUE, worker_concurrency=self.at_once, **settings)
        DBOS.register_queue(COMPARING, global_concurrency=1, **settings)

    def _translated_errors(self) -> AbstractContextManager[None]:
        return translated_errors(f"the jobs of {self.registry.location}")

    def _config(self) -> DBOSConfig:
        return {
            "name": APPLICATION,
            "application_version": APPLICATION_VERSION,
            "executor_id": self.name,
            "system_database_url": jobs_url(self.registry.location),
            "system_database_engine": self._engine(),
            "serializer": DBOSPortableJSONSerializer(),
            # Nothing is sent to anybody: no telemetry, no cloud service, and errors only in the log.
            "enable_otlp": False,
            "log_level": "ERROR",
        }

    def _engine(self) -> Engine | None:
        """DBOS's connections to PostgreSQL; None for a file, which it opens itself.

        DBOS retries a failed connection only if it recognises one, by an error text that psycopg does not always give.
        """
        url = self.registry.location.url
        if url is None:
            return None
        engine = open_database(url, read_only=False, create=False)

        @event.listens_for(engine, "handle_error")
        def know_lost_connections(context: ExceptionContext) -> None:
            if context.connection is None:
                context.is_disconnect = True

        return engine

    def _look_around(self, held: Held) -> None:
        while not self.stopping.wait(LOOK_S):
            try:
                # The registry's database is DBOS's too, and each reports in its own way that it is away.
                with self._translated_errors():
                    if not held.renew():
                        # The database was away, or another worker is taking over our jobs: try again.
                        continue
                    self._enqueue_pending()
                    self._take_over()
                    self._look_rarely()
            except (DatabaseError, RegistryError) as exc:
                _logger.warning("traitroute: %s", exc)

    def _enqueue_pending(self) -> None:
        revision = self.registry.revision()
        if revision == self._revision:
            return
        stored = self.registry.latest_profile()
        tasks = list(stored.summary.tasks) if stored else []
        digests = self.registry.task_digests()
        known = hashlib.sha256("".join(f"{t}={digests.get(t)};" for t in tasks).encode()).hexdigest()
        for adapter in pending(self.registry):
            self._enqueue(adapter, tasks, known)
        self._revision = revision

    def _enqueue(self, adapter: Adapter, tasks: list[str], tasks_digest: str) -> None:
        created = adapter.created_at.strftime("%Y%m%dT%H%M%S%f")
        identity = job_id(adapter.name, adapter.weights_digest, created, tasks_digest)
        with SetWorkflowID(identity):
            handle = DBOS.enqueue_workflow(QUEUE, self._measure_row, adapter.name, adapter.weights_digest, tasks)
        if identity not in self._seen:
            self._seen.add(identity)
            self.say(f"job {identity}")
        # It ended, and yet the adapter waits: an administrator has put it back.
        if handle.get_status().status == "SUCCESS" and adapter in pending(self.registry):
            self._again(identity)

    def _again(self, identity: str) -> None:
        try:
            DBOS.rewind_workflow(identity, queue_name=QUEUE)
        except error.DBOSException:
            _logger.debug("another worker was first to try %s again", identity)

    def _look_rarely(self) -> None:
        if time.monotonic() - self._rarely_at < RARELY_S:
            return
        self._rarely_at = time.monotonic()
        self._step_canaries()
        if self._rounds:
            self._rounds.begin()

    def _step_canaries(self) -> None:
        for figures in take_steps(self.registry):
            what = "rolled back" if figures.verdict == "roll back" else f"promoted to {figures.next_share:.0%}"
            self.say(f"{figures.adapter}, a canary at {figures.share:.1%}, is {what}: traitroute adapters canary")

    def _take_over(self) -> None:
        queues = [QUEUE, COMPARING]
        under_way = DBOS.list_workflows(status="PENDING", queue_name=queues, load_input=False, load_output=False)
        workers = {w.executor_id for w in under_way if w.executor_id}
        if self._running:
            workers.discard(self.name)
        self._free_since = {k: v for k, v in self._free_since.items() if k in workers}
        if self.name in workers:
            self._pick_up()
        for other in sorted(workers - {self.name}):
            lock = self.locks.hold(_lock_of(other))
            if lock is None:
                self._free_since.pop(other, None)
                continue
            try:
                since = self._free_since.setdefault(other, time.monotonic())
                if time.monotonic() - since >= self.locks.grace_s:
                    handles = DBOS._recover_pending_workflows([other])
                    self.say(f"{other} is gone: took over {len(handles)} of its jobs")
            finally:
                lock.release()

    def _pick_up(self) -> None:
        """Restart jobs of our own that were ended by an error from which DBOS does not recover."""
        since = self._free_since.setdefault(self.name, time.monotonic())
        if time.monotonic() - since >= LOST_S:
            DBOS._recover_pending_workflows([self.name])
            self._free_since.pop(self.name)


def _lock_of(worker: str) -> str:
    return f"worker {worker}"
