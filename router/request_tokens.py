"""What can be read off a request's text without any model and without any fitting.

*Surface*: length, digits, punctuation, layout and format marks. *Words*: hashed words and word pairs of the
whole text. *Edges*: the same of its first and last words alone, where instructions stand, in places
of their own. Every step is linear in the text, and texts are cut, so the time is bounded.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log1p
from string import ascii_uppercase
from typing import Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

MAX_CHARS = 8_000
"""Longer requests are cut to their first and last halves of this: routing time stays bounded."""

N_HASHES = 2**13
SURFACE = 16
EDGE_WORDS = 24
"""How many words at each end of a text are its edges."""

_WORD = re.compile(r"\w+|[^\w\s]")
_NUMBER = re.compile(r"\d+")
# Not `\s*`, which would run on over line ends: seconds for a page of empty lines.
_OPTION = re.compile(r"^[ \t]*\(?[A-E1-5][).:]", re.MULTILINE)
_FIELD = re.compile(r"^[ \t]*\w[\w ]{0,20}:", re.MULTILINE)
_CODE, _SUMS, _STOPS = b"(){}[]<>=;_", b"+-*/=%", b",.!'\""
_UPPER = ascii_uppercase.encode()


@dataclass(frozen=True)
class Counts:
    """Which hashed words a text has, and how often: `places` and `counts`, both (m,), of N_HASHES places."""

    places: NDArray[np.int64]
    counts: NDArray[np.float64]

    @classmethod
    def of(cls, places: NDArray[np.int64]) -> Self:
        """Count repeated `places`."""
        counts = np.bincount(places, minlength=N_HASHES)
        found = np.flatnonzero(counts > 0)
        return cls(found, counts[found].astype(np.float64))


@dataclass(frozen=True)
class RequestTokens:
    """The marks of one request: `surface` (SURFACE,), words and word pairs of the `whole` text and its `edges`."""

    surface: NDArray[np.float64]
    whole: Counts
    edges: Counts

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the marks of `text`."""
        read = cut(text)
        lower = read.lower()
        tokens = _WORD.findall(lower)
        # Encoded together: no token holds a space.
        encoded = " ".join(tokens).encode("utf-8", "replace").split()
        hashes = np.fromiter(map(crc32, encoded), np.int64, len(tokens))
        return cls(
            np.array(_surface(read, lower, tokens)),
            Counts.of(_grams(hashes)),
            Counts.of(_edge_grams(hashes)),
        )


def _grams(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the words and word pairs of a run of word hashes."""
    pairs = (hashes[:-1] * 31 + hashes[1:] * 17) >> 3
    return np.concatenate([hashes, pairs]) % N_HASHES


def _edge_grams(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([_grams(hashes[:EDGE_WORDS]), _grams(hashes[-EDGE_WORDS:] * 3 + 1)])


def cut(text: str) -> str:
    """What is read of a text: all but its margins, or its two ends where it is long."""
    text = text.strip()
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else text[:half] + "\n" + text[-half:]


def _surface(text: str, lower: str, tokens: Sequence[str]) -> list[float]:
    chars = max(len(text), 1)
    numbers = _NUMBER.findall(text)
    # ASCII characters are one byte each, and no part of another's.
    raw = text.encode("utf-8", "replace")
    return [
        log1p(chars),
        log1p(len(tokens)),
        len(text) / max(len(tokens), 1),
        sum(map(len, numbers)) / chars,
        log1p(len(numbers)),
        min(max(map(len, numbers), default=0), 12),
        log1p(text.count("\n")),
        (_count(raw, _UPPER) if text.isascii() else sum(map(str.isupper, text))) / chars,
        _count(raw, _CODE) / chars,
        _count(raw, _SUMS) / chars,
        _count(raw, _STOPS) / chars,
        min(text.count("?"), 3),
        min(len(_OPTION.findall(text)), 8),
        min(len(_FIELD.findall(text)), 8),
        float("json" in lower),
        float(text.isascii()),
    ]


def _count(raw: bytes, characters: bytes) -> int:
    return len(raw) - len(raw.translate(None, characters))
