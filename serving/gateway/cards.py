"""What a server lists of its models, and which adapter a listed name may stand for."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

Aliases = Mapping[str, tuple[str, ...]]
_DIGEST = "[0-9a-f]{64}"


@dataclass(frozen=True)
class Card:
    """A model of `GET /v1/models`; `parent` and `root` as vLLM and SGLang fill them."""

    id: str
    parent: str | None = None
    root: str | None = None
    owned_by: str | None = None

    @property
    def digest(self) -> str | None:
        """The digest that `root` shows, where that is a folder of a weight store."""
        name = PurePosixPath(self.root or "").name
        return name if re.fullmatch(_DIGEST, name) else None

    @property
    def named_digest(self) -> str | None:
        """The digest that the name ends in, where there is no `root` that would show another."""
        named = re.search(f"@({_DIGEST})$", self.id)
        return named[1] if named and self.root is None else None


def given_names(adapter: str, aliases: Aliases) -> tuple[str, ...]:
    """The names that an operator may have given to an adapter; Ollama lists `name:latest`."""
    return (*aliases.get(adapter, ()), adapter, f"{adapter}:latest")


def read_cards(content: bytes) -> dict[str, Card]:
    """The models of a listing by name; what is not of the expected form is left out."""
    try:
        listing: Any = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    data = listing.get("data") if isinstance(listing, dict) else None
    cards: dict[str, Card] = {}
    for entry in data if isinstance(data, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            texts = {k: entry[k] for k in ("parent", "root", "owned_by") if isinstance(entry.get(k), str)}
            cards[entry["id"]] = Card(entry["id"], **texts)
    return cards
