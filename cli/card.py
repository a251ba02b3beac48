"""A skill card as `traitroute adapters show NAME --card` prints and writes it."""

from pathlib import Path

from ..adapters import Registry, RegistryError
from ..router import Router
from ..serving.skills import Skills, Snapshot
from ..serving.skills.card import model_card

README = "README.md"
_OURS = ("- traitroute\n", "[More Information Needed]")
"""What a file bears that may be replaced: an earlier card, or the form that PEFT leaves unfilled beside weights."""


def adapter_card(store: Registry, name: str) -> str:
    """The card of an adapter as Markdown with the metadata of the Hub.

    Raises:
        RegistryError: nothing was profiled, the profile is too old, or there is no adapter of that name.
    """
    snapshot = Snapshot.read(store, Router.from_registry(store))
    if snapshot is None:
        raise RegistryError("the newest profile is too old to make a card of: run `traitroute profile` again")
    adapter = store.adapter(name)
    return model_card(Skills(snapshot.only({adapter.name: adapter})).card(name))


def write_card(text: str, folder: Path) -> Path:
    """Write a card into the folder of an adapter's weights, from where it is pushed to the Hub.

    Raises:
        RegistryError: there is no such folder, or its README.md was written by a person.
    """
    if not folder.is_dir():
        raise RegistryError(f"{folder} is no folder: give the one that the adapter's weights lie in")
    file = folder / README
    if file.exists() and not any(mark in file.read_text(errors="replace") for mark in _OURS):
        raise RegistryError(f"{file} was written by somebody else: move it away first")
    file.write_text(text, encoding="utf-8")
    return file
