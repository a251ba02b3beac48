"""`traitroute adapters`: list and show adapters, bring weights in, and change what is recorded of them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..adapters import Adapter, AdapterState, AllowedSources, Base, Importer, Registry, RegistryError
from ..adapters.weights.sources import Source
from . import measure
from .canary import CanaryShare, Replaces, canary, enter, parse_share, shown_share
from .console import console, say
from .options import DEFAULT_REGISTRY, RegistryPath, names

app = typer.Typer(no_args_is_help=True, help="List, add, replace and remove adapters.")

README = "README.md"
_GENERATED = ("- traitroute\n", "[More Information Needed]")
"""What a README.md holds that may be replaced: an earlier card, or the form that PEFT leaves unfilled beside weights.
"""

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
    bool, typer.Option("--same-base", help="Its base model is the registry's, though its configuration says other.")
]


@app.command("list")
def list_adapters(registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """List every adapter with its state, method, rank and digest.

    Example:

        traitroute adapters list --registry traitroute.db
    """
    table = Table("name", "state", "method", "rank", "base model", "weights", "of auto")
    with Registry.open(registry, read_only=True) as store:
        for a in store.adapters():
            rank, weights = str(a.rank), a.weights_digest[:12]
            table.add_row(a.name, a.state, a.method, rank, a.base_model, weights, shown_share(a))
        waiting = store.replacements()
    console.print(table)
    for new in waiting:
        console.print(f"{new.name} version {new.version} waits to be measured, then replaces it")


@app.command("show")
def show_adapter(
    name: Annotated[str, typer.Argument(help="The adapter's name.")],
    registry: RegistryPath = DEFAULT_REGISTRY,
    card: Annotated[
        bool, typer.Option("--card", help="Print its skill card: Markdown with the Hub's metadata.")
    ] = False,
    write: Annotated[
        Path | None, typer.Option(help="With --card: write it as README.md into this folder of weights.")
    ] = None,
) -> None:
    """Show one adapter with its measured gains on every task.

    Example:

        traitroute adapters show sentiment3
        traitroute adapters show sentiment3 --card --write runs/sentiment3
    """
    with Registry.open(registry, read_only=True) as store:
        if card or write is not None:
            text = _adapter_card(store, name)
            print(text if write is None else f"wrote {_write_card(text, write)}")
            return
        adapter = store.adapter(name)
        stored = store.latest_profile()
    for key, value in adapter.model_dump(mode="json").items():
        say(f"{key}: {value}")
    if adapter.canary is not None:
        say(
            f"auto gives it {shown_share(adapter)} of the conversations it would win: traitroute adapters canary {name}"
        )
    console.print(f"vLLM serves it: {'yes' if adapter.vllm_serves else 'no, profiled only'}")
    say(f"probe: {_on_probe(adapter)}")
    row = None if stored is None else stored.summary.row(name)
    if stored is None or row is None:
        console.print("not in the matrix of a profile: measured beside it as an ablation, or not yet")
        return
    summary = stored.summary
    table = Table(
        "task", "base", "adapter", "gain", title=f"measured (profile version {stored.version})", title_justify="left"
    )
    for task, base, score in zip(summary.tasks, summary.base, summary.scores[row], strict=True):
        table.add_row(task, f"{base:.2f}", f"{score:.2f}", f"{score - base:+.2f}")
    console.print(table)
    if (lost := summary.everyday.get(name)) is not None:
        console.print(f"loses {lost:.2f} on everyday requests, which the base model answers better")


@app.command("add")
def add(
    name: AdapterName,
    uri: Uri,
    registry: RegistryPath = DEFAULT_REGISTRY,
    tags: Annotated[str, typer.Option(help="Words by which requests may ask for it, comma-separated.")] = "",
    source_task: Annotated[str | None, typer.Option(help="The task it was trained on.")] = None,
    licence: Licence = None,
    base: Annotated[
        str | None, typer.Option(help="Base model: for a registry without adapters, which is made where there is none.")
    ] = None,
    same_base: SameBase = False,
    allow_root: AllowRoot = None,
    share: CanaryShare = None,
    replaces: Replaces = None,
) -> None:
    """Add an adapter: check it, copy its weights and record it as pending.

    It answers by its name at once, on running servers too; `auto` may choose it once it is measured.
    Added again with the same weights it stays as it is.

    Examples:

        traitroute adapters add polite ./polite-lora --tags tone,en

        traitroute adapters add polite2 ./polite-lora-2 --canary 1% --replaces polite

        traitroute adapters add legal acme/legal-lora@v2 --allow-root hub

        traitroute adapters add --base smollm2-135m-instruct --registry new.db polite ./polite-lora
    """
    allowed = AllowedSources.from_environment(allow_root or (), typed=True)
    known_base = None if base is None else _base(base)
    part = None if share is None else parse_share(share)
    with _opened(registry, base) as store, console.status("fetching and checking"):
        result = Importer(store, allowed, base=known_base).add(
            name,
            str(Source.typed(uri)),
            tags=names(tags),
            source_task=source_task,
            licence=licence,
            same_base=same_base,
        )
        measurable = store.newest_profile() is not None
        if not result.known:
            enter(store, name, part, replaces)
    adapter = result.adapter
    if result.known:
        say(f"{name} is there already with these weights ({adapter.state}): nothing changed")
        return
    say(f"added {_described(adapter)}")
    if measurable:
        some = "" if share is None else f" for {share} of the conversations it would win"
        _say_next(name, f"it answers by its name now, and `auto` may choose it{some} once it is measured")
    else:
        say(
            "pending: it answers by its name now; the registry holds no profile yet, which would measure it on rows of "
            f"your tasks: traitroute profile --registry {registry} --adapter {name} --targets FOLDER"
        )


@app.command("replace")
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
        result = Importer(store, allowed).replace(name, str(Source.typed(uri)), licence=licence, same_base=same_base)
    new = result.adapter
    if result.known:
        say(f"these weights wait already to replace {name}: nothing changed")
        return
    say(f"{_described(new)} waits to replace version {new.version - 1}")
    _say_next(name, "the old weights are served until the new ones are measured")


@app.command("withdraw")
def withdraw(name: AdapterName, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Give up the weights that wait to replace an adapter's.

    Example:

        traitroute adapters withdraw polite
    """
    with Registry.open(registry) as store:
        withdrawn = store.withdraw_replacement(name)
    say(f"withdrawn: {_described(withdrawn)}; {name} stays as it is")


app.command("measure")(measure.measure)
app.command("canary")(canary)


@app.command("remove")
def remove(
    name: AdapterName,
    registry: RegistryPath = DEFAULT_REGISTRY,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget an adapter; servers stop offering it within seconds.

    Its weights stay in the store, for a server may hold them, and so does what was measured of them.

    Example:

        traitroute adapters remove polite --yes
    """
    with Registry.open(registry) as store:
        adapter = store.adapter(name)
        if not yes:
            typer.confirm(f"remove {name} ({adapter.state}) from {registry}?", abort=True)
        store.remove_adapter(name, expected=adapter)
    say(f"removed {name}; its weights stay in the store, so adding them again copies nothing")


@app.command("disable")
def disable(
    name: AdapterName,
    registry: RegistryPath = DEFAULT_REGISTRY,
    note: Annotated[str | None, typer.Option(help="Why, for whoever looks next.")] = None,
) -> None:
    """Serve an adapter no more, neither by `auto` nor by its name, until it is enabled.

    Example:

        traitroute adapters disable polite --note "answers in French"
    """
    with Registry.open(registry) as store:
        store.set_state(name, AdapterState.DISABLED, note=note)
    say(f"{name} is disabled; back with: traitroute adapters enable {name}")


@app.command("enable")
def enable(name: AdapterName, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Serve a disabled adapter again: ready where its weights are measured, else pending.

    Example:

        traitroute adapters enable polite
    """
    with Registry.open(registry) as store:
        state = store.enable(name).state
    say(f"{name} is {state}")


@app.command("tag")
def tag(
    name: AdapterName,
    tags: Annotated[list[str] | None, typer.Argument(help="Its tags from now on; none removes all.")] = None,
    registry: RegistryPath = DEFAULT_REGISTRY,
) -> None:
    """Tag an adapter, in place of the tags it has; requests may ask for adapters by their tags.

    Example:

        traitroute adapters tag polite tone en
    """
    with Registry.open(registry) as store:
        tags = list(store.set_tags(name, tags or []).tags)
    say(f"{name} is tagged {', '.join(tags)}" if tags else f"{name} has no tags now")


def _adapter_card(store: Registry, name: str) -> str:
    """The card of an adapter as Markdown with the metadata of the Hub.

    Raises:
        RegistryError: nothing was profiled, the profile is too old, or there is no adapter of that name.
    """
    from ..router import Router
    from ..serving.profile_snapshot import ProfileSnapshot
    from ..serving.skills import Skills
    from ..serving.skills.card import model_card

    snapshot = ProfileSnapshot.read(store, Router.from_registry(store))
    if snapshot is None:
        raise RegistryError("the newest profile is too old to make a card of: run `traitroute profile` again")
    adapter = store.adapter(name)
    return model_card(Skills(snapshot.only({adapter.name: adapter})).card(name))


def _on_probe(adapter: Adapter) -> str:
    """What the adapter was seen to change when it was measured."""
    from ..serving.engines.probe import Effect

    effect = Effect.measured(adapter)
    if effect is None:
        return "not read yet; measuring reads it, and so does each server that loads the adapter"
    told = "so it is applied" if effect.is_shown else f"which is no proof, for it takes {effect.threshold:.2g} nats"
    return f"a change of {effect}, when it was measured, {told}"


def _write_card(text: str, folder: Path) -> Path:
    """Write a card into the folder of an adapter's weights, from where it is pushed to the Hub.

    Raises:
        RegistryError: there is no such folder, or its README.md was written by a person.
    """
    if not folder.is_dir():
        raise RegistryError(f"{folder} is no folder: give the one that the adapter's weights lie in")
    file = folder / README
    if file.exists() and not any(mark in file.read_text(errors="replace") for mark in _GENERATED):
        raise RegistryError(f"{file} was written by somebody else: move it away first")
    file.write_text(text, encoding="utf-8")
    return file


def _opened(registry: RegistryPath, base: str | None) -> Registry:
    return Registry.open(registry) if base is None else Registry.create(registry)


def _base(name: str) -> Base:
    from ..profiling import open_base_model

    base = open_base_model(name)
    return Base(base.name, base.digest, base.path)


def _described(adapter: Adapter) -> str:
    weights = adapter.weights_digest[:12]
    return f"{adapter.name} version {adapter.version} ({adapter.method}, rank {adapter.rank}, weights {weights})"


def _say_next(name: str, what: str) -> None:
    say(f"pending: {what}: traitroute adapters measure {name}, or a running traitroute worker")
