"""Frames with slots: how a few lines of a phrase book become many different sentences.

In a frame, `{place}` takes a phrase from the book's list of that name, the same one wherever it
recurs; `{place2}` takes another one; `[a|b|]` takes one alternative, perhaps the empty one.
Of `random.Random` only `random()` is used: Python keeps its sequence across versions, and promises
that for no other method.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")
Book = Mapping[str, Sequence[str]]

_HOLE = re.compile(r"\{(\w+)\}|\[([^\[\]]*)\]")
_SPARE_SPACE = re.compile(r" +(?=[ ,.;:?!])")
_ARTICLE = re.compile(r"\b([Aa])(?= [aeiouAEIOU])")
_START = re.compile(r"(?:^|[.?!] )[a-z]")


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of the options."""
    return options[int(rng.random() * len(options))]


def between(rng: Random, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return low + int(rng.random() * (high - low + 1))


def shuffled(rng: Random, items: Iterable[T]) -> list[T]:
    """The items in a random order."""
    return sorted(items, key=lambda _: rng.random())


def book(text: str) -> dict[str, list[str]]:
    """Read a phrase book: `slot = phrase / phrase`, an entry running on over lines without ` = `."""
    entries: dict[str, str] = {}
    slot = ""
    for line in text.strip().splitlines():
        head, mark, rest = line.partition(" = ")
        slot = head.strip() if mark else slot
        entries[slot] = f"{entries.get(slot, '')} {rest if mark else line}"
    return {slot: [phrase.strip() for phrase in entry.split(" / ")] for slot, entry in entries.items()}


class Voice:
    """Fills frames from a phrase book and remembers in `said` what it put into each slot."""

    def __init__(self, rng: Random, book: Book, **said: str) -> None:
        self.said = said
        self._rng = rng
        self._book = book
        self._taken: dict[str, list[str]] = {}

    def say(self, frame: str) -> str:
        """The frame with every hole filled, spacing, articles and capitals put right."""
        text = _SPARE_SPACE.sub("", self._fill(frame)).strip()
        text = _ARTICLE.sub(r"\1n", text)
        return _START.sub(lambda start: start[0].upper(), text)

    def _fill(self, frame: str) -> str:
        while hole := _HOLE.search(frame):
            slot, alternatives = hole.groups()
            filling = self._slot(slot) if slot else pick(self._rng, alternatives.split("|"))
            frame = frame[: hole.start()] + filling + frame[hole.end() :]
        return frame

    def _slot(self, slot: str) -> str:
        if slot not in self.said:
            entry = slot.rstrip("23456789")
            taken = self._taken.setdefault(entry, [])
            phrase = pick(self._rng, [phrase for phrase in self._book[entry] if phrase not in taken])
            taken.append(phrase)
            self.said[slot] = self._fill(phrase)
        return self.said[slot]
