"""The command line, and the one place where our errors become one line and an exit code.

Exit code 2: the input is wrong and the user can mend it. Exit code 1: the run went wrong.
"""

import sys
from typing import NoReturn

import typer
from rich.console import Console

from ..adapters import InputError, TraitRouteError
from . import (
    adapters,
    compare,
    demo,
    doctor,
    gateway,
    jobs,
    matrix,
    mcp,
    predict,
    profile,
    profiles,
    recalibrate,
    registry,
    report,
    route,
    serve,
    suggest_tasks,
    tasks,
    traits,
    worker,
)

INTERRUPTED = 130
"""What Typer turns Ctrl-C into, without a word."""

app = typer.Typer(
    name="traitroute",
    help=(
        "Measure what every LoRA adapter really does, and route each request to the one it needs.\n\n"
        'Start with `traitroute profile mini`, then `traitroute route "2 + 2?" --explain`, '
        "then `traitroute serve`."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("profile")(profile.profile)
app.add_typer(adapters.app, name="adapters")
app.add_typer(profiles.app, name="profiles")
app.add_typer(tasks.app, name="tasks")
app.add_typer(registry.app, name="registry")
app.command("matrix")(matrix.matrix)
app.command("traits")(traits.traits)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("predict")(predict.predict)
app.command("route")(route.route)
app.command("recalibrate")(recalibrate.recalibrate)
app.command("suggest-tasks")(suggest_tasks.suggest_tasks)
app.command("serve")(serve.serve)
app.command("gateway")(gateway.gateway)
app.command("worker")(worker.worker)
app.add_typer(jobs.app, name="jobs")
app.command("mcp")(mcp.mcp)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command line; user mistakes end in one line, never in a traceback."""
    try:
        app()
    except (InputError, ImportError) as exc:
        _end(" ".join(line.strip() for line in str(exc).splitlines()), 2)
    except (TraitRouteError, OSError) as exc:
        _end(str(exc), 1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _say("stopped; finished work is kept, run the same command to go on")
        raise


def _end(message: str, code: int) -> NoReturn:
    _say(f"error: {message}", style="red")
    sys.exit(code)


def _say(text: str, *, style: str | None = None) -> None:
    error = Console(stderr=True, soft_wrap=True, highlight=False)
    error.print(text, style=style, markup=False)
