"""Jobs, each of which measures one adapter's row of the transfer matrix until the adapter can be routed to.

`profiling.jobs` runs them as workflows of DBOS Transact. Here they are listed, shown and retried, by commands and over
HTTP. DBOS keeps them in an SQLite file beside the registry's, or in the registry's own PostgreSQL database (schema
`dbos`); everything in it is JSON, by its portable serializer.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine, create_engine, inspect
from starlette.requests import Request
from starlette.responses import Response

from ...adapters import Location, RegistryError, UnknownNameError
from ...adapters.registry.database import translated_errors
from ...adapters.registry.postgresql import open_database
from ..http.errors import UnavailableError, error_response
from ..http.openapi import Operation
from ..http.tenants import tenant_of
from ..state import ServerState

if TYPE_CHECKING:
    from dbos import DBOSClient, StepInfo, WorkflowStatus

QUEUE = "measure-rows"
SCHEMA = "dbos"
"""The schema of DBOS's tables in a PostgreSQL database."""
APPLICATION = "traitroute"
APPLICATION_VERSION = "jobs-1"
"""Raised when the steps of a job change, so that a worker never resumes a job that has other steps."""
SHOWN = 100
"""How many jobs are listed, the newest first."""
FIND, MEASURE = "find", "measure"
"""Prefixes of steps' names: of the one that counts the examples, and of those that measure."""

_JOBS = "workflow_status"
T = TypeVar("T")


class JobState(StrEnum):
    """`waiting`: the model server or the registry is away, and is retried; `set-aside`: the adapter is at fault and
    disabled; `withdrawn`: it was removed or replaced meanwhile; `failed`: something else is at fault, and the adapter
    stays pending.
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    SET_ASIDE = "set-aside"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


_UNDER_WAY = {"ENQUEUED": JobState.QUEUED, "DELAYED": JobState.QUEUED, "PENDING": JobState.RUNNING}


class Job(BaseModel):
    """The measuring of one adapter, and how far it is."""

    model_config = ConfigDict(frozen=True)

    id: str
    adapter: str = Field(description="The adapter's name.")
    weights_digest: str = Field(description="SHA-256 of the weights that are measured.")
    state: JobState
    done: int = Field(description="Examples measured so far.")
    most: int = Field(description="Examples to measure at most; it may end earlier.")
    remaining_s: float | None = Field(default=None, description="Seconds left at most, by the pace so far.")
    reason: str | None = Field(default=None, description="What is waited for, or why the job ended without success.")
    profile_version: int | None = Field(default=None, description="The profile that the adapter joined.")
    worker: str | None = Field(default=None, description="The worker that runs it.")
    queued_at: datetime
    ended_at: datetime | None = None


class JobList(BaseModel):
    """The newest jobs, the newest first."""

    model_config = ConfigDict(frozen=True)

    object: Literal["list"] = "list"
    data: tuple[Job, ...]


def jobs_file(location: Location) -> Path | None:
    """The file with the jobs of the registry at `location`; None where they are in its database."""
    path = location.path
    return None if path is None else path.with_name(f"{path.stem}.jobs.db")


def jobs_url(location: Location) -> str:
    """The URL of the database with the jobs, for DBOS; it may hold a password."""
    file = jobs_file(location)
    return location.reveal() if file is None else f"sqlite:///{file.resolve()}"


def job_operations(state: ServerState) -> list[Operation]:
    """`GET /v1/jobs` and `GET /v1/jobs/{id}`: the jobs of the registry of `state`."""

    async def read(question: Callable[[JobBoard], T]) -> T | Response:
        if state.snapshot.location is None:
            raise UnavailableError("the registry was not read yet, so its jobs are not known")
        try:
            return await asyncio.to_thread(question, JobBoard(state.snapshot.location))
        except UnknownNameError:
            raise
        except RegistryError as exc:
            raise UnavailableError(str(exc), retry_s=None) from exc
        except ImportError as exc:
            return error_response(501, str(exc))

    async def listed(request: Request) -> JobList | Response:
        seen = state.seen_by(tenant_of(request.scope))
        return await read(lambda board: JobList(data=tuple(job for job in board.jobs() if seen.may_name(job.adapter))))

    async def one(request: Request) -> Job | Response:
        seen = state.seen_by(tenant_of(request.scope))

        def find(board: JobBoard) -> Job:
            job = board.job(request.path_params["id"])
            if not seen.may_name(job.adapter):
                raise _no_job(job.id)
            return job

        return await read(find)

    return [Operation("GET", "/v1/jobs", listed, JobList), Operation("GET", "/v1/jobs/{id}", one, Job)]


class JobBoard:
    """The jobs of the registry at `location`; several threads may use it."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def jobs(self) -> list[Job]:
        """The newest jobs, the newest first.

        Raises:
            ImportError: the `worker` extra is missing.
            DatabaseError: the database cannot be read.
        """
        with self._client() as client:
            if client is None:
                return []
            newest = client.list_workflows(queue_name=QUEUE, limit=SHOWN, sort_desc=True)
            return [_job(client, status) for status in newest]

    def job(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            ImportError: the `worker` extra is missing.
            UnknownNameError: there is no such job.
            DatabaseError: the database cannot be read.
        """
        with self._client() as client:
            return _job(client, _find(client, job_id))

    def retry(self, job_id: str) -> Job:
        """Queue a job that failed or was set aside again; measured cells are kept.

        Raises:
            ImportError: the `worker` extra is missing.
            RegistryError: there is no such job, or it is under way or done.
            DatabaseError: the database cannot be read.
        """
        with self._client() as client:
            job = _job(client, _find(client, job_id))
            if job.state not in (JobState.FAILED, JobState.SET_ASIDE) or client is None:
                raise RegistryError(f"job {job_id} is {job.state}: only failed jobs and those set aside can be retried")
            client.rewind_workflow(job_id, queue_name=QUEUE)
            return _job(client, _find(client, job_id))

    @contextmanager
    def _client(self) -> Iterator["DBOSClient | None"]:
        """A connection to DBOS's database; None where no worker has made one yet."""
        try:
            from dbos import DBOSClient, DBOSPortableJSONSerializer
        except ImportError as exc:
            raise ImportError("jobs need the extra: pip install 'traitroute[worker]'") from exc

        engine = self._engine()
        try:
            with translated_errors(f"the jobs of {self._location}"):
                schema = None if engine.dialect.name == "sqlite" else SCHEMA
                if not inspect(engine).has_table(_JOBS, schema=schema):
                    yield None
                    return
                client = DBOSClient(
                    system_database_engine=engine,
                    serializer=DBOSPortableJSONSerializer(),
                    application_name=APPLICATION,
                    retry_connection_errors=False,
                )
                try:
                    yield client
                finally:
                    client.destroy()
        finally:
            engine.dispose()

    def _engine(self) -> Engine:
        if self._location.url is not None:
            return open_database(self._location.url, read_only=False, create=False)
        file = jobs_file(self._location)
        # SQLite creates a file when it is opened.
        return create_engine(jobs_url(self._location) if file and file.exists() else "sqlite://")


def _find(client: "DBOSClient | None", job_id: str) -> "WorkflowStatus":
    matches = client.list_workflows(workflow_ids=[job_id], queue_name=QUEUE) if client else []
    if not matches:
        raise _no_job(job_id)
    return matches[0]


def _no_job(job_id: str) -> UnknownNameError:
    return UnknownNameError(f"no job {job_id!r}: see `traitroute jobs list`")


def _job(client: "DBOSClient | None", status: "WorkflowStatus") -> Job:
    adapter, weights, _ = (status.input or {"args": ("", "", [])})["args"]
    state, progress = _ended(status)
    if state is None:
        progress = _progress(client.list_workflow_steps(status.workflow_id) if client else [])
        state = _UNDER_WAY[status.status]
        if state is JobState.RUNNING and "reason" in progress:
            state = JobState.WAITING
    return Job(
        id=status.workflow_id,
        adapter=adapter,
        weights_digest=weights,
        state=state,
        done=progress.get("done", 0),
        most=progress.get("most", 0),
        remaining_s=progress.get("remaining_s"),
        reason=progress.get("reason"),
        profile_version=progress.get("version"),
        worker=status.executor_id if state in (JobState.RUNNING, JobState.WAITING) else None,
        queued_at=_time(status.created_at or 0),
        ended_at=_time(status.completed_at) if status.completed_at else None,
    )


def _ended(status: "WorkflowStatus") -> tuple[JobState | None, dict[str, Any]]:
    if status.status in _UNDER_WAY:
        return None, {}
    if status.status == "SUCCESS" and status.output:
        return JobState(status.output["state"]), status.output
    return JobState.FAILED, {"reason": str(status.error or status.status.lower())}


def _progress(steps: "Sequence[StepInfo]") -> dict[str, Any]:
    """Examples done, the time that the others will take at most at this pace, and what is waited for."""
    named = [(step["function_name"], step["output"] or {}) for step in steps]
    most = sum(output.get("most", 0) for name, output in named if name == FIND)
    parts = [o for name, o in named if name.startswith(MEASURE) and "examples" in o]
    done = sum(part["examples"] for part in parts)
    progress: dict[str, Any] = {"done": done, "most": most}
    if done:
        pace = sum(part.get("seconds", 0.0) for part in parts) / done
        progress["remaining_s"] = pace * max(most - done, 0)
    # A pause is a step too, and comes after what it waits for.
    last = [output for name, output in named[-2:] if "away" in output]
    return progress | ({"reason": last[-1]["away"]} if last else {})


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
