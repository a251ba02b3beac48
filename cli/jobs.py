"""`traitroute jobs`: how far the measuring of added adapters is."""

from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..adapters import AdapterState, Registry, RegistryError
from ..serving.jobs import Job, JobBoard, JobState
from .options import DEFAULT_REGISTRY, RegistryPath, console

app = typer.Typer(no_args_is_help=True, help="List, show and retry the jobs of `traitroute worker`.")
JobId = Annotated[str, typer.Argument(help="The job's id, as `traitroute jobs list` shows it.")]


@app.command("list")
def list_jobs(registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """List the newest jobs with their state, their examples and the time that is left.

    Example:

        traitroute jobs list
    """
    table = Table()
    for column in ("adapter", "state", "examples", "left", "reason", "id"):
        table.add_column(column, overflow="fold")
    with Registry.open(registry, read_only=True) as store:
        for job in JobBoard(store.location).jobs():
            done = f"{job.done} of {job.most} at most" if job.ended_at is None else f"{job.done}"
            reason = escape(job.reason or "")
            table.add_row(job.adapter, job.state, done, _left(job), reason, job.id)
    console.print(table)


@app.command("show")
def show_job(job_id: JobId, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Show one job.

    Example:

        traitroute jobs show reviews.0f3a5c11d2e4.20261125T120000000000.3b085d7c
    """
    with Registry.open(registry, read_only=True) as store:
        job = JobBoard(store.location).job(job_id)
    for key, value in job.model_dump(mode="json", exclude_none=True).items():
        console.print(f"{key}: {value}", highlight=False, markup=False, soft_wrap=True)


@app.command("retry")
def retry_job(job_id: JobId, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Try a job again that failed or was set aside; what was measured is kept.

    Example:

        traitroute jobs retry reviews.0f3a5c11d2e4.20261125T120000000000.3b085d7c
    """
    with Registry.open(registry) as store:
        board = JobBoard(store.location)
        if (job := board.job(job_id)).state is JobState.SET_ASIDE:
            adapter = store.adapter(job.adapter)
            if adapter.weights_digest != job.weights_digest:
                raise RegistryError(
                    f"{job.adapter} has other weights than job {job_id} was for: add or replace it anew"
                )
            store.set_state(job.adapter, AdapterState.PENDING, expected=adapter)
        job = board.retry(job_id)
    console.print(f"{job.adapter}: {job.state}; a running `traitroute worker` takes it up")


def _left(job: Job) -> str:
    if job.remaining_s is None:
        return ""
    return str(timedelta(seconds=round(job.remaining_s)))
