"""The board of jobs: reads what DBOS keeps of them, and asks for one to be tried again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, inspect

from ...adapters import Location, RegistryError, UnknownNameError
from ...adapters.registry.database import translated_errors
from ...adapters.registry.postgresql import open_database
from .job import Job, JobState
from .place import APPLICATION, QUEUE, SCHEMA, jobs_file, jobs_url

if TYPE_CHECKING:
    from dbos import DBOSClient, StepInfo, WorkflowStatus

SHOWN = 100
"""So many jobs are listed, the newest first."""
FIND, MEASURE = "find", "measure"
"""How the names of steps begin: of the one that tells how many examples there are at most, and of those that measure."""

_JOBS = "workflow_status"
_UNDER_WAY = {"ENQUEUED": JobState.QUEUED, "DELAYED": JobState.QUEUED, "PENDING": JobState.RUNNING}


class JobBoard:
    """The jobs of the registry at `location`; safe to use from several threads."""

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
            found = client.list_workflows(queue_name=QUEUE, limit=SHOWN, sort_desc=True)
            return [_job(client, status) for status in found]

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
        """Put a job that failed or was set aside into the queue again; cells that were measured are kept.

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
        # SQLite makes a file by looking for it.
        return create_engine(jobs_url(self._location) if file and file.exists() else "sqlite://")


def _find(client: "DBOSClient | None", job_id: str) -> "WorkflowStatus":
    found = client.list_workflows(workflow_ids=[job_id], queue_name=QUEUE) if client else []
    if not found:
        raise UnknownNameError(f"no job {job_id!r}: see `traitroute jobs list`")
    return found[0]


def _job(client: "DBOSClient | None", status: "WorkflowStatus") -> Job:
    adapter, weights, _ = (status.input or {"args": ("", "", [])})["args"]
    state, told = _ended(status)
    if state is None:
        told = _progress(client.list_workflow_steps(status.workflow_id) if client else [])
        state = _UNDER_WAY[status.status]
        if state is JobState.RUNNING and "reason" in told:
            state = JobState.WAITING
    return Job(
        id=status.workflow_id,
        adapter=adapter,
        weights_digest=weights,
        state=state,
        done=told.get("done", 0),
        most=told.get("most", 0),
        remaining_s=told.get("remaining_s"),
        reason=told.get("reason"),
        profile_version=told.get("version"),
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
    """Examples done, the time that the others will take at most at the pace so far, and what is waited for."""
    named = [(step["function_name"], step["output"] or {}) for step in steps]
    most = sum(output.get("most", 0) for name, output in named if name == FIND)
    parts = [o for name, o in named if name.startswith(MEASURE) and "examples" in o]
    done = sum(part["examples"] for part in parts)
    told: dict[str, Any] = {"done": done, "most": most}
    if done:
        pace = sum(part.get("seconds", 0.0) for part in parts) / done
        told["remaining_s"] = pace * max(most - done, 0)
    # A pause is a step too, and comes after what it waits for.
    last = [output for name, output in named[-2:] if "away" in output]
    return told | ({"reason": last[-1]["away"]} if last else {})


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
