"""`traitroute adapters remove`, `disable`, `enable` and `tag`: what is changed of an adapter that is there."""

from typing import Annotated

import typer

from ..adapters import AdapterState, Registry
from .arrivals import AdapterName
from .options import DEFAULT_REGISTRY, RegistryPath, console


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
        found = store.adapter(name)
        if not yes:
            typer.confirm(f"remove {name} ({found.state}) from {registry}?", abort=True)
        store.remove_adapter(name, expected=found)
    _say(f"removed {name}; its weights stay in the store, so adding them again copies nothing")


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
    _say(f"{name} is disabled; back with: traitroute adapters enable {name}")


def enable(name: AdapterName, registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Serve a disabled adapter again: ready where its weights are measured, else pending.

    Example:

        traitroute adapters enable polite
    """
    with Registry.open(registry) as store:
        state = store.enable(name).state
    _say(f"{name} is {state}")


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
    _say(f"{name} is tagged {', '.join(tags)}" if tags else f"{name} has no tags now")


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
