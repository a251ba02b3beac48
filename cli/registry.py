"""`traitroute registry`: the registry as a whole."""

from typing import Annotated

import typer

from ..adapters import Location, Registry
from ..adapters.copying import copy_registry
from .options import console

app = typer.Typer(no_args_is_help=True, help="Copy a registry from a file to a database, or back.")
Source = Annotated[
    Location, typer.Argument(help="The registry to copy.", metavar="FROM", parser=Location.parse)
]
Target = Annotated[
    Location,
    typer.Argument(help="A new file, or an empty database.", metavar="TO", parser=Location.parse),
]


@app.callback()
def registry() -> None:
    """Copy a registry from a file to a database, or back."""


@app.command("copy")
def copy(source: Source, target: Target) -> None:
    """Copy records, cells, profiles, feedback and weights; stop whatever writes to FROM before.

    The weights of a database lie in $TRAITROUTE_WEIGHTS.

    Example:

        TRAITROUTE_WEIGHTS=/shared/weights
        traitroute registry copy traitroute.db postgresql+psycopg://me@db.example/traitroute
    """

    def told(part: str, count: int) -> None:
        console.print(f"{part}: {count}", highlight=False)

    with Registry.open(source, read_only=True) as old, Registry.create(target) as new:
        copy_registry(old, new, on_part=told)
