"""`traitroute tenants`: make keys, and say what each tenant may use."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..adapters import InputError, Registry
from ..serving.http.tenants import VARIABLE, Tenant, key_hash, new_key, read_tenants
from .console import console, say, warn
from .options import DEFAULT_REGISTRY, RegistryPath

app = typer.Typer(no_args_is_help=True, help="Say which API keys may use which adapters, and make such keys.")
TenantsPath = Annotated[
    Path,
    typer.Option("--file", metavar="FILE", envvar=VARIABLE, help="The tenants' file, which servers read and follow."),
]


@app.command("key")
def make_key() -> None:
    """Make a key, and print it with the hash for the tenants' file; the key is kept nowhere.

    Example:

        traitroute tenants key
    """
    key = new_key()
    say(f"key, for its bearer, shown this once: {key}\nhash, for `keys` in the file: {key_hash(key)}")


@app.command("add")
def add_tenant(
    name: Annotated[str, typer.Argument(help="The new tenant's name.")],
    file: TenantsPath,
    adapter: Annotated[
        list[str] | None, typer.Option(help="Adapter that it may use, '*' for every one; repeatable.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="It may use every adapter with this tag; repeatable.")] = None,
) -> None:
    """Add a tenant with a new key, which is printed this once; servers that read the file follow within a second.

    Examples:

        traitroute tenants add kitchen --file tenants.toml --adapter chef --tag cooking

        traitroute tenants add operators --file tenants.toml --adapter '*'
    """
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    if name in _read(file, before):
        raise InputError(f"{file} has a tenant {name} already: edit it, with a hash of `traitroute tenants key`")
    key = new_key()
    lists = {"keys": [key_hash(key)], "adapters": adapter or [], "tags": tag or []}
    lines = [f"{field} = [{', '.join(map(_quoted, values))}]" for field, values in lists.items()]
    text = "\n".join([*([before.rstrip(), ""] if before.strip() else []), f"[tenants.{_quoted(name)}]", *lines, ""])
    # Nothing is written that no server would read.
    _read(file, text)
    _replace(file, text)
    say(f"{file}: added {name}\nkey, for its bearer, shown this once: {key}")


@app.command("check")
def check_tenants(file: TenantsPath, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """List the tenants with what each may use now, and warn of names and tags that no adapter has.

    Example:

        traitroute tenants check --file tenants.toml
    """
    tenants = _read(file, file.read_text(encoding="utf-8"))
    with Registry.open(registry, read_only=True) as store:
        tags = {adapter.name: adapter.tags for adapter in store.adapters()}
    table = Table("tenant", "keys", "may use now", "requests to our routes")
    for name, tenant in sorted(tenants.items()):
        table.add_row(escape(name), str(len(tenant.keys)), escape(_usable(tenant, tags)), _limits(tenant))
    console.print(table)
    known_tags = {tag for each in tags.values() for tag in each}
    for name, tenant in sorted(tenants.items()):
        for adapter in sorted(tenant.adapters - tags.keys() - {"*"}):
            warn(f"{name}: the registry has no adapter {adapter!r}; if a server has a model of that name, it is open")
        for tag in sorted(tenant.tags - known_tags):
            warn(f"{name}: no adapter is tagged {tag!r}")


def _usable(tenant: Tenant, tags: dict[str, tuple[str, ...]]) -> str:
    if tenant.may_all:
        return "every adapter"
    return ", ".join(name for name in sorted(tags) if tenant.may_use(name, tags[name])) or "base alone"


def _limits(tenant: Tenant) -> str:
    at_once = f"{tenant.concurrent} at a time" if tenant.concurrent else ""
    return ", ".join(filter(None, (tenant.rate, at_once))) or "as the server says"


def _read(file: Path, text: str) -> dict[str, Tenant]:
    try:
        return read_tenants(text)
    except InputError as exc:
        raise InputError(f"{file}: {exc}") from exc


def _quoted(text: str) -> str:
    if not text.isprintable() or {'"', "\\"} & set(text):
        raise InputError(f"{text!r} is no name: use letters, digits, dots, dashes and underscores")
    return f'"{text}"'


def _replace(file: Path, text: str) -> None:
    """Write the file whole or not at all, for its owner and whoever could read it before."""
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as written:
            written.write(text)
        Path(draft).chmod(mode)
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
