"""Options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..adapters import Location

# Logs have no width of their own; the tables need about this much.
console = Console(width=None if sys.stdout.isatty() else 150)


def warn(text: str) -> None:
    """Print a warning."""
    console.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


ServerKey = Annotated[
    str | None,
    typer.Option("--api-key-env", help="Environment variable with the server's API key."),
]
Concurrency = Annotated[
    int,
    typer.Option(min=1, max=64, help="Requests that are under way at the server at a time."),
]
WebOrigins = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        envvar="TRAITROUTE_CORS_ORIGINS",
        help="Origin of web pages that may read answers, as https://app.example; repeatable (in the variable: separated "
        "by spaces). '*' is any, with a key only.",
    ),
]
RegistryPath = Annotated[
    Location,
    typer.Option(
        "--registry",
        parser=Location.parse,
        metavar="FILE|URL",
        envvar="TRAITROUTE_REGISTRY",
        help="The registry: a file, beside which adapter weights lie, or postgresql+psycopg://USER@HOST/DATABASE, "
        "with the weights in $TRAITROUTE_WEIGHTS.",
    ),
]
DEFAULT_REGISTRY = Location(path=Path("traitroute.db"))
