"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(soft_wrap=False)

RegistryPath = Annotated[
    Path,
    typer.Option(
        "--registry",
        envvar="TRAITROUTE_REGISTRY",
        help="The registry file; adapter weights lie beside it.",
    ),
]
DEFAULT_REGISTRY = Path("traitroute.db")
