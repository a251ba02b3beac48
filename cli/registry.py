"""`traitroute registry`: the registry as a whole."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from ..adapters import Location, Registry
from ..adapters.registry.registry import copy_registry
from ..adapters.registry.schema import SCHEMA_VERSION
from ..adapters.weights.store import GRACE
from .console import console
from .options import DEFAULT_REGISTRY, RegistryPath

app = typer.Typer(
    no_args_is_help=True, help="Make, migrate or copy a registry, or free what its weight store no longer needs."
)
Source = Annotated[Location, typer.Argument(help="The registry to copy.", metavar="FROM", parser=Location.parse)]
Target = Annotated[
    Location, typer.Argument(help="A new file, or an empty database.", metavar="TO", parser=Location.parse)
]


@app.callback()
def registry() -> None:
    """Make, migrate or copy a registry, or free what its weight store no longer needs."""


@app.command("migrate")
def migrate(registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Make an empty registry where there is none, and bring an older one to this version's schema.

    Every command that opens an older registry migrates it; this does nothing else, for an account that may change
    tables where the servers' may not. Make a backup first: there is no way back.

    Example:

        traitroute registry migrate --registry postgresql+psycopg://owner@db.example/traitroute
    """
    Registry.create(registry).close()
    console.print(f"{registry} has schema {SCHEMA_VERSION}", highlight=False, soft_wrap=True)


@app.command("copy")
def copy(source: Source, target: Target) -> None:
    """Copy records, cells, profiles, feedback and weights; stop whatever writes to FROM before.

    The weights of a database lie in $TRAITROUTE_WEIGHTS.

    Example:

        TRAITROUTE_WEIGHTS=/shared/weights
        traitroute registry copy traitroute.db postgresql+psycopg://me@db.example/traitroute
    """

    def say_part(part: str, count: int) -> None:
        console.print(f"{part}: {count}", highlight=False)

    with Registry.open(source, read_only=True) as old, Registry.create(target) as new:
        copy_registry(old, new, on_part=say_part)


@app.command("clean")
def clean_store(
    registry: RegistryPath = DEFAULT_REGISTRY,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what may go; without, list it.")] = False,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="How long nothing must have named weights before they go.")
    ] = GRACE / timedelta(hours=1),
) -> None:
    """List weights that no adapter, replacement or profile names, and with --yes remove them.

    Weights are marked when they are first found, and go only --grace-hours later, since servers may hold them until
    then; so run this twice. A profile names the weights of all its adapters, removed ones too, until
    `traitroute profiles prune` forgets it. The store must not be shared with another registry.

    Example:

        traitroute registry clean
        traitroute registry clean --yes
    """
    grace = timedelta(hours=grace_hours)
    with Registry.open(registry) as store:
        unnamed, root = store.weights.clean(store.named_weights(), grace=grace, free=yes), store.weights.root
    if not unnamed:
        console.print(f"{root} holds nothing that could go", highlight=False, soft_wrap=True)
        return
    now, table = datetime.now(UTC), Table()
    for column in ("in the weight store", "size", "unnamed since", "may go"):
        table.add_column(column)
    for each in unnamed:
        due = each.since + grace
        when = "removed" if each.freed else "now" if due <= now else f"from {_minute(due)}"
        name = each.folder.name[:20]
        table.add_row(name, decimal(each.size), _minute(each.since), when)
    console.print(table)
    freed = [each.size for each in unnamed if each.freed]
    ready = [each.size for each in unnamed if not each.freed and each.since + grace <= now]
    if yes:
        console.print(f"removed {len(freed)}: {decimal(sum(freed))} freed", highlight=False)
    elif ready:
        console.print(f"{len(ready)} may go now, {decimal(sum(ready))}: repeat this with --yes", highlight=False)


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
