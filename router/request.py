"""A request, from an OpenAI-style body to the tokens that features are computed from.

The text that is routed is the *first* user turn that says something: it stays the same through a conversation, so every
turn, in any server process, routes to the same adapter and keeps its prefix cache, which a switch inside a conversation
loses whole (docs/decisions.md). System prompts are left out: agents send one system prompt with unlike tasks.

`RequestTokens` is what a text gives without any fitting. *Words*: hashed words and word pairs of the whole text.
*Edges*: the same of its first and last words alone, where instructions stand, hashed apart. *Meaning*: its static
sentence vector. Every step is linear in the text, and texts are cut, so the time is bounded.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..adapters import InputError
from .meaning import packaged_encoder, split_words, without_accents
from .text import says_something, shortened

NO_TEXT = "no-text: the request says nothing to route by, neither a word nor a sum"
"""Reason given where the base model answers because the text has nothing to route by."""

N_HASHES = 2**13
"""Words and word pairs are hashed to so many places."""

EDGE_WORDS = 24
"""Number of words at each end of a text that are its edges."""

_WORD = re.compile(r"\w+|\S")


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
        present, counts = np.unique(places, return_counts=True)
        return cls(present, counts.astype(np.float64))


@dataclass(frozen=True)
class RequestTokens:
    """What is read off one text: words and word pairs of the `whole` text and of its `edges`, and its `meaning`, a unit
    vector (d,)."""

    whole: Counts
    edges: Counts
    meaning: NDArray[np.float32]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the tokens of `text`."""
        text = shortened(text).lower()
        words = _WORD.findall(text)
        # Encoded together: no word holds a space.
        encoded = " ".join(words).encode("utf-8", "replace").split()
        hashes = np.fromiter(map(crc32, encoded), np.int64, len(words))
        edges = np.concatenate([_grams(hashes[:EDGE_WORDS]), _grams(hashes[-EDGE_WORDS:] * 3 + 1)])
        plain = without_accents(text)
        # Most texts have the same words for their meaning, and need not be split once more.
        words = words if plain == text and "_" not in text else split_words(plain)
        return cls(Counts.of(_grams(hashes)), Counts.of(edges), packaged_encoder().encode_words(words))


Request = str | RequestTokens
"""A request's text, or its tokens where they were read before."""


def tokens_of(request: Request) -> RequestTokens:
    """The tokens of a request, read from its text where needed."""
    return RequestTokens.read(request) if isinstance(request, str) else request


def _grams(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the words and word pairs of a run of word hashes."""
    pairs = (hashes[:-1] * 31 + hashes[1:] * 17) >> 3
    return np.concatenate([hashes, pairs]) % N_HASHES


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
