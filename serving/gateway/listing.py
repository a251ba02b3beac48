"""What an upstream lists under GET /v1/models, and which name there means which adapter.

A name is believed only as far as it can be: a card whose root is a folder of the weight store shows the weights'
digest, and a name that the gateway gave is believed by that alone. Of any other name the operator says what it
stands for, at the time the upstream was started; once the registry has new weights, it is not used.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ...adapters import Adapter
from ...adapters.adapter import served_name
from ..middleware import AUTO, BASE

_PARTS = re.compile(r"[:@]")
Aliases = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Card:
    """One listed model; `parent` and `root` as vLLM and SGLang fill them."""

    id: str
    parent: str | None = None
    root: str | None = None
    owned_by: str | None = None


def parse_cards(listing: Any) -> dict[str, Card]:
    """Return the listed models by name; what is not of the expected form is left out."""
    data = listing.get("data") if isinstance(listing, dict) else None
    cards = [_card(entry) for entry in data or () if isinstance(entry, dict)]
    return {card.id: card for card in cards if card is not None}


def _card(entry: dict[str, Any]) -> Card | None:
    if not isinstance(entry.get("id"), str):
        return None
    texts = {k: entry[k] for k in ("parent", "root", "owned_by") if isinstance(entry.get(k), str)}
    return Card(entry["id"], **texts)


def runtime_name(adapter: Adapter) -> str:
    """The name under which the gateway loads an adapter: new weights have a new one.

    No adapter's own name holds an `@`, so it cannot be mistaken for another adapter's.
    """
    return f"{adapter.name}@{adapter.weights_digest[:12]}"


def given_names(adapter: str, aliases: Aliases) -> tuple[str, ...]:
    """The names that an operator may have given to an adapter; Ollama lists `name:latest`."""
    return (*aliases.get(adapter, ()), adapter, f"{adapter}:latest")


def names_by_root(cards: Mapping[str, Card]) -> dict[str, str]:
    """The listed names of weights from a weight store, by digest."""
    roots = ((rooted(card), name) for name, card in cards.items())
    return {digest: name for digest, name in roots if digest is not None}


def listed_name(adapter: Adapter, cards: Mapping[str, Card], aliases: Aliases, pins: Mapping[str, str]) -> str | None:
    """The name in `cards` that stands for the adapter's weights by the operator's word, where no root shows it.

    `pins` are the digests that names stood for when they were first seen.
    """
    digest = adapter.weights_digest
    # What others are built upon is a base model, whatever an adapter is called.
    bases = {card.parent for card in cards.values()}
    for name in given_names(adapter.name, aliases):
        if name not in cards or name in bases or rooted(cards[name]) is not None:
            continue
        if pins.get(name, digest) == digest:
            return name
    return None


def others(cards: Mapping[str, Card], adapters: Collection[str], aliases: Aliases) -> dict[str, Card]:
    """The listed models that have nothing to do with `adapters`, the registry's past and present ones by name.

    What stands for an adapter is asked for by the adapter's name, so that the registry has a say: disabled and removed
    ones are not found here by another name. `cook@…`, `tiny:cook` and `Cook:7b` all speak of `cook`.
    """
    taken = {served_name(name) for a in adapters for name in given_names(a, aliases)}
    return {
        name: card
        for name, card in cards.items()
        if rooted(card) is None and taken.isdisjoint({served_name(name), *_PARTS.split(name.casefold())})
    }


def base_name(
    adapters: Sequence[Adapter],
    cards: Mapping[str, Card],
    aliases: Aliases,
    no_adapters: Mapping[str, Card],
) -> str | None:
    """The upstream's name of the base model, or None where the listing leaves it open.

    `no_adapters` are the `others` of the listing.
    """
    given = aliases.get(BASE, ())
    expected = dict.fromkeys((*given, *(adapter.base_model for adapter in adapters)))
    if found := next((name for name in expected if name in cards), None):
        return found
    if given:
        # Some servers list nothing, and some of the hosted ones not everything.
        return given[0]
    roots = [c for c in no_adapters.values() if c.parent is None and c.id != AUTO]
    same = len({card.root or card.id for card in roots}) == 1
    return roots[0].id if same else None


def rooted(card: Card) -> str | None:
    """The digest that a card's root shows, where that is a folder of a weight store."""
    name = PurePosixPath(card.root or "").name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None
