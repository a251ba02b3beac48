"""What can be read off a request's text without any model and without any fitting.

*Surface*: length, digits, punctuation, layout and format marks. *Words*: hashed words and word pairs of the
whole text. *Edges*: the same of its first and last words alone, where instructions stand, in places
of their own. Every step is linear in the text, and texts are cut, so the time is bounded.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
_CODE = str.maketrans("", "", "(){}[]<>=;_")
_SUMS = str.maketrans("", "", "+-*/=%")
_STOPS = str.maketrans("", "", ",.!'\"")


@dataclass(frozen=True)
class Counts:
    """Which hashed words a text has, and how often: `places` and `counts`, both (m,), of N_HASHES places."""

    places: NDArray[np.int64]
    counts: NDArray[np.float64]

    @classmethod
    def of(cls, places: NDArray[np.int64]) -> Self:
        """Count repeated `places`."""
        found, counts = np.unique(places, return_counts=True)
        return cls(found, counts.astype(np.float64))


@dataclass(frozen=True)
class RequestMarks:
    """The marks of one request: `surface` (SURFACE,), words and word pairs of the `whole` text and its `edges`."""

    surface: NDArray[np.float64]
    whole: Counts
    edges: Counts

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the marks of `text`."""
        cut = _cut(text)
        tokens = _WORD.findall(cut.lower())
        hashes = np.fromiter(
            (crc32(t.encode("utf-8", "replace")) for t in tokens), np.int64, len(tokens)
        )
        return cls(
            np.array(_surface(cut, tokens)),
            Counts.of(_grams(hashes)),
            Counts.of(_edge_grams(hashes)),
        )


def _grams(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the words and word pairs of a run of word hashes."""
    pairs = (hashes[:-1] * 31 + hashes[1:] * 17) >> 3
    return np.concatenate([hashes, pairs]) % N_HASHES


def _edge_grams(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([_grams(hashes[:EDGE_WORDS]), _grams(hashes[-EDGE_WORDS:] * 3 + 1)])


def _cut(text: str) -> str:
    text = text.strip()
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else text[:half] + "\n" + text[-half:]


def _surface(text: str, tokens: Sequence[str]) -> list[float]:
    chars = max(len(text), 1)
    numbers = _NUMBER.findall(text)
    return [
        np.log1p(chars),
        np.log1p(len(tokens)),
        len(text) / max(len(tokens), 1),
        sum(map(len, numbers)) / chars,
        np.log1p(len(numbers)),
        min(max(map(len, numbers), default=0), 12),
        np.log1p(text.count("\n")),
        sum(map(str.isupper, text)) / chars,
        (len(text) - len(text.translate(_CODE))) / chars,
        (len(text) - len(text.translate(_SUMS))) / chars,
        (len(text) - len(text.translate(_STOPS))) / chars,
        min(text.count("?"), 3),
        min(len(_OPTION.findall(text)), 8),
        min(len(_FIELD.findall(text)), 8),
        float("json" in text.lower()),
        float(text.isascii()),
    ]
