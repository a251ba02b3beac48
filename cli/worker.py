"""`traitroute worker`: measure added adapters on the server that serves them."""

import os
import signal
from typing import Annotated

import typer

from ..adapters import Registry, RegistryError
from .options import DEFAULT_REGISTRY, Concurrency, RegistryPath, ServerKey, console
from .secrets import secret


def worker(
    server: Annotated[
        str,
        typer.Option(
            "--server",
            help="URL of a running server of the registry's adapters, with or without /v1.",
        ),
    ],
    registry: RegistryPath = DEFAULT_REGISTRY,
    api_key_env: ServerKey = None,
    concurrency: Concurrency = 4,
    share: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1,
            help="Share of a row's examples that is measured at most; 1 is all of them.",
        ),
    ] = 0.1,
    jobs: Annotated[int, typer.Option(min=1, max=16, help="Adapters that are measured at a time.")] = 1,
) -> None:
    """Measure every adapter that waits, and open it to routing.

    Adapters that are added, and replacements, are found within a second. Each is measured on SERVER, at its
    lowest priority and part by part; finished parts outlive a worker that is killed, and another goes on with them. Several workers
    may share a registry: on one machine where it is a file, anywhere where it is a PostgreSQL database.
    `traitroute jobs` shows how far they are.

    Example:

        traitroute worker --server http://localhost:8000
    """
    try:
        from ..profiling.jobs.locks import open_locks
        from ..profiling.jobs.pending import served_name
        from ..profiling.jobs.steps import RowSteps
        from ..profiling.jobs.worker import Worker
        from ..serving.engines.completions import CompletionsClient
        from ..serving.engines.openai import OpenAIEngine
    except ImportError as exc:
        raise ImportError("the worker needs an extra: pip install 'traitroute[worker]'") from exc
    from ..profiling import open_base_model
    from ..profiling.profile import quiet_libraries

    quiet_libraries()
    key = secret("--api-key-env", api_key_env)
    with Registry.open(registry) as store, CompletionsClient(server, api_key=key) as client:
        if (stored := store.latest_profile()) is None:
            raise RegistryError(
                f"{registry} holds no profile yet, which tells the tasks to measure on: run `traitroute profile` first"
            )
        base = open_base_model(stored.summary["base_model"])
        engine = OpenAIEngine(client, base.path, concurrency=concurrency, address=lambda a: served_name(store, a))
        if not engine.scores:
            console.print("the server gives no log-probabilities of prompts: answers are measured, likelihoods are not")
        locks = open_locks(store.location)
        work = Worker(store, RowSteps(store, engine, base, locks, share), locks, jobs, say=_say)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: work.stopping.set())
        _say(f"{work.name} measures on {client.url}")
        work.run()
        _say("stopped; what is under way goes on when a worker runs again")
        # Without waiting for the step under way: a worker may be killed at any moment, and this is no worse.
        os._exit(0)


def _say(text: str) -> None:
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
