"""`traitroute adapters add`, `replace` and `withdraw`: weights that come in, and wait to be measured."""

from pathlib import Path
from typing import Annotated

import typer

from ..adapters import Adapter, AllowedSources, Base, Importer, Registry
from .options import DEFAULT_REGISTRY, RegistryPath, console

AdapterName = Annotated[str, typer.Argument(help="The adapter's name.", show_default=False)]
Uri = Annotated[
    str,
    typer.Argument(
        help="A folder that PEFT saved, a Hub id ORG/NAME[@REVISION], or a URL such as s3://BUCKET/FOLDER.",
        show_default=False,
    ),
]
AllowRoot = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-root",
        metavar="PLACE",
        help="A URL that adapters may come from, or `hub`; repeatable, beside $TRAITROUTE_ALLOWED_SOURCES. "
        "Folders of this machine need none.",
    ),
]
Licence = Annotated[str | None, typer.Option(help="The adapter's licence [default: the one in its README].")]
SameBase = Annotated[
    bool,
    typer.Option("--same-base", help="Its base model is the registry's, though its configuration says other."),
]


def add(
    name: AdapterName,
    uri: Uri,
    registry: RegistryPath = DEFAULT_REGISTRY,
    tags: Annotated[str, typer.Option(help="Words by which requests may ask for it, comma-separated.")] = "",
    source_task: Annotated[str | None, typer.Option(help="The task it was trained on.")] = None,
    licence: Licence = None,
    base: Annotated[
        str | None,
        typer.Option(help="Base model: for a registry without adapters, which is made where there is none."),
    ] = None,
    same_base: SameBase = False,
    allow_root: AllowRoot = None,
) -> None:
    """Add an adapter: check it, copy its weights and record it as pending.

    It answers by its name at once, on running servers too; `auto` may choose it once it is measured.
    Added again with the same weights it stays as it is.

    Examples:

        traitroute adapters add polite ./polite-lora --tags tone,en

        traitroute adapters add legal acme/legal-lora@v2 --allow-root hub

        traitroute adapters add --base smollm2-135m-instruct --registry new.db polite ./polite-lora
    """
    allowed = AllowedSources.from_environment(allow_root or (), typed=True)
    known_base = None if base is None else _base(base)
    with _opened(registry, base) as store, console.status("fetching and checking"):
        arrival = Importer(store, allowed, base=known_base).add(
            name,
            _typed(uri),
            tags=[tag.strip() for tag in tags.split(",") if tag.strip()],
            source_task=source_task,
            licence=licence,
            same_base=same_base,
        )
    adapter = arrival.adapter
    if arrival.known:
        _say(f"{name} is there already with these weights ({adapter.state}): nothing changed")
        return
    _say(f"added {_described(adapter)}")
    _say_next(name, "it answers by its name now, and `auto` may choose it once it is measured")


def replace(
    name: AdapterName,
    uri: Uri,
    registry: RegistryPath = DEFAULT_REGISTRY,
    licence: Licence = None,
    same_base: SameBase = False,
    allow_root: AllowRoot = None,
) -> None:
    """Give an adapter new weights: the old ones are served until the new are measured.

    Example:

        traitroute adapters replace polite ./polite-lora-2
    """
    allowed = AllowedSources.from_environment(allow_root or (), typed=True)
    with Registry.open(registry) as store, console.status("fetching and checking"):
        arrival = Importer(store, allowed).replace(name, _typed(uri), licence=licence, same_base=same_base)
    new = arrival.adapter
    if arrival.known:
        _say(f"these weights wait already to replace {name}: nothing changed")
        return
    _say(f"{_described(new)} waits to replace version {new.version - 1}")
    _say_next(name, "the old weights are served until the new ones are measured")


def withdraw(name: AdapterName, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Give up the weights that wait to replace an adapter's.

    Example:

        traitroute adapters withdraw polite
    """
    with Registry.open(registry) as store:
        given_up = store.withdraw_replacement(name)
    _say(f"withdrawn: {_described(given_up)}; {name} stays as it is")


def _opened(registry: RegistryPath, base: str | None) -> Registry:
    return Registry.open(registry) if base is None else Registry.create(registry)


def _base(name: str) -> Base:
    from ..profiling import open_base_model

    found = open_base_model(name)
    return Base(found.name, found.digest, found.path)


def _typed(uri: str) -> str:
    """A folder as its absolute path; what is neither there nor written like a path stays a Hub id or URL."""
    path = Path(uri).expanduser()
    is_path = path.is_dir() or path.is_absolute() or uri.startswith(".")
    return str(path.resolve()) if is_path and "://" not in uri else uri


def _described(adapter: Adapter) -> str:
    weights = adapter.weights_digest[:12]
    return f"{adapter.name} version {adapter.version} ({adapter.method}, rank {adapter.rank}, weights {weights})"


def _say_next(name: str, what: str) -> None:
    _say(f"pending: {what}: traitroute adapters measure {name}, or a running traitroute worker")


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
