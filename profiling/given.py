"""Adapters that are there already: found in a folder, brought into the registry, and what is known of their training.

An adapter that cannot be profiled is set aside with the reason and the others go on, unless it was asked for by name.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pydantic import ValidationError

from ..adapters import (
    Adapter,
    AdapterState,
    AllowedSources,
    Base,
    Importer,
    InputError,
    Registry,
    TrainingNote,
)
from ..adapters.adapter import model_name
from ..adapters.weights.adapter_files import CONFIG, configured_base
from ..adapters.weights.sources import Source
from .base_model import BaseModelFolder
from .matrix.profiled import read_training_rows
from .tasks.suite import GivenAdapter

DEEPEST, MOST_FOLDERS, MOST_ADAPTERS = 6, 20_000, 1000
"""How far a folder is searched for adapters: levels, folders, and adapters."""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 64
_SHOWN = 3


@dataclass(frozen=True)
class GivenAdapters:
    """The adapters that are profiled, what is known of their training by name, and why others are `set_aside`."""

    adapters: tuple[Adapter, ...] = ()
    training: Mapping[str, TrainingNote] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> str:
        """Why adapters were set aside, in one line: of the first few."""
        shown = [f"{name}: {why}" for name, why in list(self.set_aside.items())[:_SHOWN]]
        more = len(self.set_aside) - len(shown)
        return "; ".join([*shown, *([f"and {more} more"] if more else [])])

    def source(self, name: str) -> Path | None:
        """The file of rows that an adapter was trained on, where one is known."""
        note = self.training.get(name)
        return Path(note.rows) if note and note.rows else None


def bring(
    given: Sequence[GivenAdapter], base: BaseModelFolder, registry: Registry, allowed: AllowedSources
) -> GivenAdapters:
    """Fetch and check adapters, and record in `registry` those that it does not have.

    Raises:
        InputError: one that is required is refused: see `Importer.add`; or its rows cannot be read.
    """
    importer = Importer(registry, allowed, base=Base(base.name, base.digest, base.path))
    adapters: list[Adapter] = []
    training: dict[str, TrainingNote] = {}
    set_aside: dict[str, str] = {}
    for each in given:
        try:
            adapter, note = _bring(each, base, registry, importer)
        except InputError as exc:
            if each.required:
                raise
            set_aside[each.name] = str(exc)
            continue
        if adapter.state == AdapterState.DISABLED:
            why = adapter.note or "by its owner"
            set_aside[each.name] = f"it is disabled ({why}); back with: traitroute adapters enable {each.name}"
            continue
        adapters.append(adapter)
        if note != TrainingNote():
            training[each.name] = note
    return GivenAdapters(tuple(adapters), training, set_aside)


def _bring(
    given: GivenAdapter, base: BaseModelFolder, registry: Registry, importer: Importer
) -> tuple[Adapter, TrainingNote]:
    """The adapter as it is recorded, and what is known of its training."""
    rows = None
    if given.rows is not None:
        _ = read_training_rows(given.rows)
        rows = str(given.rows.resolve())
    if given.uri is not None:
        result = importer.add(given.name, str(Source.typed(given.uri)), same_base=given.same_base)
        return result.adapter, TrainingNote(rows=rows, datasets=result.datasets)
    adapter = registry.adapter(given.name)
    if adapter.base_digest != base.digest:
        raise InputError(
            f"adapter {given.name} is for {adapter.base_model}, and this profile for {base.name}: profile it with "
            f"--base {adapter.base_model}"
        )
    return adapter, TrainingNote(rows=rows)


def named_adapter(text: str, *, same_base: bool = False) -> GivenAdapter:
    """The adapter that a person typed as NAME, of the registry, or as NAME=PLACE.

    Raises:
        InputError: it has no name, or one that cannot be an adapter's.
    """
    name, given, place = text.partition("=")
    if given and not place:
        raise InputError(f"{text!r}: no place follows the '='; give NAME=FOLDER, a Hub id or a URL, or the NAME alone")
    try:
        return GivenAdapter(name=name, uri=place or None, same_base=same_base)
    except ValidationError as exc:
        why = exc.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"{text!r} is no NAME=PLACE: {why}") from exc


def stated_base(given: Sequence[GivenAdapter]) -> str | None:
    """The base model that all adapters in folders of this machine are for by their configurations; None without any.

    Raises:
        InputError: they are for several.
    """
    folders = [Path(each.uri).expanduser() for each in given if each.uri is not None]
    stated = {folder: name for folder in folders if (name := configured_base(folder)) is not None}
    if len({model_name(name) for name in stated.values()}) > 1:
        (one, first), (other, second) = next(
            (a, b) for a, b in pairwise(stated.items()) if model_name(a[1]) != model_name(b[1])
        )
        raise InputError(
            f"{one} is for base model {first}, and {other} for {second}: a profile is of one base model; name it with "
            "--base, and give its own adapters only"
        )
    return next(iter(stated.values()), None)


def find_adapters(folder: Path, *, same_base: bool = False) -> list[GivenAdapter]:
    """Every adapter that PEFT saved in a folder below `folder`, or in it, named after its folder.

    Nothing is searched inside an adapter's folder, where its checkpoints may lie, and no link is followed.

    Raises:
        InputError: there is no such folder, it holds no adapter, or too much to search.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give one with adapters that PEFT saved in folders below it")
    places = list(_adapter_folders(folder))
    if not places:
        raise InputError(f"{folder} holds no adapter: no folder in it, {DEEPEST} levels deep, has a file {CONFIG}")
    names = [_name(place.name) for place in places]
    names = [
        name if names.count(name) == 1 else _name("-".join(place.relative_to(folder).parts))
        for name, place in zip(names, places, strict=True)
    ]
    return [
        GivenAdapter(name=name, uri=str(place.resolve()), same_base=same_base, required=False)
        for name, place in zip(names, places, strict=True)
    ]


def _adapter_folders(folder: Path) -> Iterator[Path]:
    adapters = 0
    for searched, (place, folders, files) in enumerate(os.walk(folder), start=1):
        if searched > MOST_FOLDERS:
            raise InputError(f"{folder} holds more than {MOST_FOLDERS} folders: name one that holds the adapters alone")
        folders.sort()
        if CONFIG in files:
            adapters += 1
            if adapters > MOST_ADAPTERS:
                raise InputError(f"{folder} holds more than {MOST_ADAPTERS} adapters: profile a part of them")
            folders.clear()
            yield Path(place)
        elif len(Path(place).relative_to(folder).parts) >= DEEPEST:
            folders.clear()


def _name(text: str) -> str:
    """The nearest text that can name an adapter."""
    return _NOT_IN_NAMES.sub("-", text).replace("..", ".").strip("._-")[:_LONGEST_NAME] or "adapter"
