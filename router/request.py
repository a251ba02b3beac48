"""A request, from an OpenAI-style body to the tokens that features are computed from.

The text that is routed is the *first* user turn that says something: it stays the same through a conversation, so every
turn, in any server process, routes to the same adapter and keeps its prefix cache, which a switch inside a conversation
loses whole (docs/decisions.md). System prompts are left out: agents send one system prompt with unlike tasks.

`RequestTokens` is what a text gives without any model and without any fitting. *Surface*: length, digits, punctuation,
layout and format. *Words*: hashed words and word pairs of the whole text. *Edges*: the same of its first and last words
alone, where instructions stand, hashed apart. Every step is linear in the text, and texts are cut, so the time is
bounded.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log1p
from string import ascii_uppercase
from typing import Any, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..adapters import InputError

NO_TEXT = "no-text: the request says nothing to route by, neither a word nor a sum"
"""Reason given where the base model answers because the text has nothing to route by."""

MAX_CHARS = 8_000
"""Of a longer text only the first and last half of so many characters are read, so that routing time is bounded."""

N_HASHES = 2**13
"""Words and word pairs are hashed to so many places."""

SURFACE = 16
"""Number of surface statistics."""

EDGE_WORDS = 24
"""Number of words at each end of a text that are its edges."""

_WORD = re.compile(r"\w+|[^\w\s]")
_NUMBER = re.compile(r"\d+")
# Not `\s*`, which would run on over line ends: seconds for a page of empty lines.
_OPTION = re.compile(r"^[ \t]*\(?[A-E1-5][).:]", re.MULTILINE)
_FIELD = re.compile(r"^[ \t]*\w[\w ]{0,20}:", re.MULTILINE)
_CODE, _SUMS, _STOPS = b"(){}[]<>=;_", b"+-*/=%", b",.!'\""
_UPPER = ascii_uppercase.encode()
# Invisible fillers that Unicode counts as letters.
_FILLERS = "\u115f\u1160\u3164\uffa0"
_OPERATORS = re.escape("+-*/^=<>%×÷−·≤≥≠")
_SUM = re.compile(rf"\d[\s()]*[{_OPERATORS}][\s().{_OPERATORS}]*\d")


@dataclass(frozen=True)
class Counts:
    """The hashed words of a text: their `places` (m,), ascending, out of N_HASHES, and how often each occurs, `counts`
    (m,).
    """

    places: NDArray[np.int64]
    counts: NDArray[np.float64]

    @classmethod
    def of(cls, places: NDArray[np.int64]) -> Self:
        """Count repeated `places`."""
        counts = np.bincount(places, minlength=N_HASHES)
        present = np.flatnonzero(counts)
        return cls(present, counts[present].astype(np.float64))


@dataclass(frozen=True)
class RequestTokens:
    """What is read off one text: `surface` (SURFACE,), words and word pairs of the `whole` text and of its `edges`."""

    surface: NDArray[np.float64]
    whole: Counts
    edges: Counts

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the tokens of `text`."""
        text = shortened(text)
        lower = text.lower()
        words = _WORD.findall(lower)
        # Encoded together: no word holds a space.
        encoded = " ".join(words).encode("utf-8", "replace").split()
        hashes = np.fromiter(map(crc32, encoded), np.int64, len(words))
        edges = np.concatenate([_grams(hashes[:EDGE_WORDS]), _grams(hashes[-EDGE_WORDS:] * 3 + 1)])
        return cls(np.array(_surface(text, lower, words)), Counts.of(_grams(hashes)), Counts.of(edges))


Request = str | RequestTokens
"""A request's text, or its tokens where they were read before."""


def tokens_of(request: Request) -> RequestTokens:
    """The tokens of a request, read from its text where needed."""
    return RequestTokens.read(request) if isinstance(request, str) else request


def _grams(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the words and word pairs of a run of word hashes."""
    pairs = (hashes[:-1] * 31 + hashes[1:] * 17) >> 3
    return np.concatenate([hashes, pairs]) % N_HASHES


def shortened(text: str) -> str:
    """The part of a text that is read: without surrounding space, and only its two ends where it is long."""
    text = text.strip()
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else text[:half] + "\n" + text[-half:]


def _surface(text: str, lower: str, words: Sequence[str]) -> list[float]:
    chars = max(len(text), 1)
    numbers = _NUMBER.findall(text)
    # ASCII characters are one byte each, and no part of another's.
    raw = text.encode("utf-8", "replace")
    return [
        log1p(chars),
        log1p(len(words)),
        len(text) / max(len(words), 1),
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


def says_something(text: str) -> bool:
    """Whether a text has anything to route by: a letter of any script, or a sum (numbers with an operator between)."""
    text = shortened(text)
    return any(c.isalpha() and c not in _FILLERS for c in text) or _SUM.search(text) is not None


def request_text(body: Mapping[str, Any], *, last: bool = False) -> str:
    """Return the text to route from a chat-completions (`messages`) or completions (`prompt`) body.

    That is the first user turn that says something, or with `last` the last one; of several prompts always the first.
    The text is empty for a well-formed body without text: images, tool results, token ids.

    Raises:
        InputError: the body is malformed.
    """
    if "messages" in body:
        turns = body["messages"]
        if not isinstance(turns, list) or not turns:
            raise InputError('"messages" must be a list with at least one message')
        texts = map(_user_text, reversed(turns) if last else turns)
    else:
        texts = _prompts(body.get("prompt"))
    return next(filter(says_something, texts), "")


def _user_text(message: Any) -> str:
    if not isinstance(message, Mapping) or not isinstance(message.get("role", message.get("type")), str):
        raise InputError(f'each message must be an object with a "role", and not {reprlib.repr(message)}')
    return _content_text(message.get("content")) if message.get("role") == "user" else ""


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else () if content is None else (None,)
    return "\n".join(filter(None, map(_part_text, parts)))


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise InputError('a user message\'s "content" must be text or a list of parts')
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _prompts(prompt: Any) -> Iterable[str]:
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt, list) and prompt:
        # The first one decides: the app checks the others, and of token ids there may be a million.
        if isinstance(prompt[0], str):
            return (each for each in prompt if isinstance(each, str))
        if isinstance(prompt[0], int | list):
            return ()
    raise InputError('no text to route: the body needs "messages" with a message, or "prompt" as text or token ids')
