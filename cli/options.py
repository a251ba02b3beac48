"""Options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

# Logs have no width of their own; the tables need about this much.
console = Console(width=None if sys.stdout.isatty() else 150)

RegistryPath = Annotated[
    Path,
    typer.Option(
        "--registry",
        envvar="TRAITROUTE_REGISTRY",
        help="The registry file; adapter weights lie beside it.",
    ),
]
DEFAULT_REGISTRY = Path("traitroute.db")
