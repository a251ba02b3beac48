"""`traitroute worker` and `traitroute jobs`: measure added adapters on the server that serves them, and watch it."""

import os
import signal
from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..adapters import AdapterState, InputError, Registry, RegistryError
from ..serving.jobs import Job, JobBoard, JobState
from .comparing import JudgeKey, JudgeModel, JudgeUrl, Tenants, comparer_of, referee_of, sample_keys
from .console import console, say
from .options import DEFAULT_REGISTRY, Concurrency, RegistryPath, ServerKey, newest_profile, secret

app = typer.Typer(no_args_is_help=True, help="List, show and retry the jobs of `traitroute worker`.")
JobId = Annotated[str, typer.Argument(help="The job's id, as `traitroute jobs list` shows it.")]


def worker(
    server: Annotated[
        str, typer.Option("--server", help="URL of a running server of the registry's adapters, with or without /v1.")
    ],
    registry: RegistryPath = DEFAULT_REGISTRY,
    api_key_env: ServerKey = None,
    concurrency: Concurrency = 4,
    share: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="Share of a row's examples that is measured at most; 1 is all of them."),
    ] = 0.1,
    jobs: Annotated[int, typer.Option(min=1, max=16, help="Adapters that are measured at a time.")] = 1,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="judge|agreement|format",
            envvar="TRAITROUTE_COMPARE",
            help="Compare adapters on recurring requests too, once a day at most; `traitroute samples compared`.",
        ),
    ] = None,
    judge: JudgeModel = None,
    judge_url: JudgeUrl = None,
    judge_key_env: JudgeKey = None,
    tenants: Tenants = None,
) -> None:
    """Measure every adapter that waits, and open it to routing.

    Adapters that are added, and replacements, are found within a second. Each is measured on SERVER, at its
    lowest priority and part by part; finished parts outlive a worker that is killed, and another goes on with them.
    Several workers may share a registry: on one machine where it is a file, anywhere where it is a PostgreSQL database.
    `traitroute jobs` shows how far they are.

    With --compare and the servers' TRAITROUTE_SAMPLE_KEY it also compares adapters on requests that recur and that
    nothing profiled is like, as `traitroute samples compare` does. Nothing of that joins the profile by itself.

    Examples:

        traitroute worker --server http://localhost:8000

        traitroute worker --server http://localhost:8000 --compare agreement
    """
    try:
        from ..profiling.jobs.comparing import ComparingSteps
        from ..profiling.jobs.locks import open_locks
        from ..profiling.jobs.steps import RowSteps, served_name
        from ..profiling.jobs.worker import Worker
        from ..serving.engines.completions import CompletionsClient
        from ..serving.engines.openai import OpenAIEngine
    except ImportError as exc:
        raise ImportError("the worker needs an extra: pip install 'traitroute[worker]'") from exc
    from ..profiling.base_model import open_base_files
    from ..profiling.profile import quiet_libraries

    referee = referee_of(compare, judge, judge_url, judge_key_env) if compare else None
    if referee is None and (judge or judge_url or judge_key_env):
        raise InputError("a judge compares only where that is switched on: give --compare judge")
    if referee is not None:
        sample_keys()
    quiet_libraries()
    key = secret("--api-key-env", api_key_env)
    with Registry.open(registry) as store, CompletionsClient(server, api_key=key) as client:
        base = open_base_files(newest_profile(store).summary.base_model, store.base_models())
        engine = OpenAIEngine(client, base.path, concurrency=concurrency, address=lambda a: served_name(store, a))
        if not engine.scores:
            console.print("the server gives no log-probabilities of prompts: answers are measured, likelihoods are not")
        locks = open_locks(store.location)
        comparing = ComparingSteps(comparer_of(store, engine, referee, tenants)) if referee else None
        work = Worker(store, RowSteps(store, engine, base, locks, share), locks, jobs, comparing, say=say)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: work.stopping.set())
        say(f"{work.name} measures on {client.url}")
        work.run()
        say("stopped; what is under way goes on when a worker runs again")
        # Without waiting for the step under way: a worker may be killed at any moment, and this is no worse.
        os._exit(0)


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
        say(f"{key}: {value}")


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
