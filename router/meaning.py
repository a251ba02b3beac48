"""What a text means, at the price of words: the sum of static token vectors, made from a sentence encoder.

Two texts that say the same in other words get vectors of a high cosine, which hashed words cannot give. The vectors
shipped here are taken from all-MiniLM-L6-v2 by `benchmarks/meaning.py --distil`, which says how and what they are worth
(docs/decisions.md); reading a text needs no model and neither torch nor a tokeniser package.

Texts are cut as `RequestTokens` cuts them. Words that the vocabulary lacks are split into its pieces, longest first as
WordPiece does, but only so many of them, and none that is longer than any word: time is bounded whatever the text.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import sqrt
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..adapters import InputError
from .text import shortened

Array32 = NDArray[np.float32]

PACKAGED = Path(__file__).with_name("meaning.safetensors")
"""The vectors that ship with the package."""

LONGEST_WORD = 24
"""A longer run of letters or digits is no word: a key, a hash, base64. It says nothing."""

MAX_SPLIT = 32
"""Of a text so many distinct words are split that the vocabulary lacks; the others say nothing."""

_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
_ACCENT = re.compile(r"[\u0300-\u036f]+")
_CURE = "reinstall traitroute, or make them anew with benchmarks/meaning.py --distil"


def words_of(text: str) -> list[str]:
    """The words and marks of a text, in lower case and without accents, cut as requests are."""
    return split_words(without_accents(shortened(text).lower()))


def split_words(text: str) -> list[str]:
    """The words and marks of a text as it is."""
    return _WORD.findall(text)


def without_accents(text: str) -> str:
    """The text without accents; the same one where it is of plain letters."""
    return text if text.isascii() else _ACCENT.sub("", unicodedata.normalize("NFD", text))


class Vocabulary:
    """Tokens by place: whole words, and pieces that go on a word and are written with ## before them."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._place = {token: i for i, token in enumerate(self.tokens)}
        self._longest = max((len(t.removeprefix("##")) for t in self.tokens), default=0)

    def __len__(self) -> int:
        return len(self.tokens)

    def counts(self, words: Iterable[str]) -> tuple[NDArray[np.int64], Array32]:
        """The places (m,) of the tokens of `words`, and how often each occurs (m,)."""
        counted = Counter(words)
        found = map(self._place.get, counted)
        counts = {place: n for place, n in zip(found, counted.values(), strict=True) if place is not None}
        if len(counts) < len(counted):
            unknown = [word for word in counted if word not in self._place and 1 < len(word) <= LONGEST_WORD]
            for word in unknown[:MAX_SPLIT]:
                for piece in self._pieces(word):
                    counts[piece] = counts.get(piece, 0) + counted[word]
        return np.fromiter(counts, np.int64, len(counts)), np.fromiter(counts.values(), np.float32, len(counts))

    def _pieces(self, word: str) -> list[int]:
        """The longest pieces that make up `word`, or none where some part of it is no piece."""
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = word[start:end] if start == 0 else "##" + word[start:end]
                if (known := self._place.get(piece)) is not None:
                    found.append(known)
                    start = end
                    break
            else:
                return []
        return found


@dataclass(frozen=True, eq=False)
class MeaningEncoder:
    """Token vectors in eight bits: `steps` (tokens, d) times `scale` (tokens,); read-only, so safe between threads."""

    vocabulary: Vocabulary
    steps: NDArray[np.int8]
    scale: Array32

    @classmethod
    def of(cls, tokens: Sequence[str], vectors: NDArray[np.floating]) -> Self:
        """Round the `vectors` (tokens, d) of `tokens` to eight bits each."""
        scale = np.abs(vectors).max(axis=1, initial=0) / 127
        steps = np.rint(vectors / np.where(scale > 0, scale, 1)[:, None])
        return cls(Vocabulary(tokens), steps.astype(np.int8), scale.astype(np.float32))

    @property
    def width(self) -> int:
        """d, the length of a vector."""
        return self.steps.shape[1]

    def encode_one(self, text: str) -> Array32:
        """The unit vector (d,) of a text; zeros where it holds no word that is known."""
        return self.encode_words(words_of(text))

    def encode_words(self, words: Iterable[str]) -> Array32:
        """The same of the words of a text."""
        places, counts = self.vocabulary.counts(words)
        vector = (counts * self.scale[places]) @ self.steps[places].astype(np.float32)
        return (vector / max(sqrt(vector @ vector), 1e-12)).astype(np.float32, copy=False)

    def encode(self, texts: Sequence[str]) -> Array32:
        """The unit vectors (n, d) of texts."""
        return np.array([self.encode_one(t) for t in texts], np.float32).reshape(len(texts), self.width)

    @cached_property
    def digest(self) -> str:
        """Names this encoder: vectors of two encoders are not to be compared."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """The encoder as a safetensors file."""
        words = "\n".join(self.vocabulary.tokens).encode()
        tensors = {"steps": self.steps, "scale": self.scale, "tokens": np.frombuffer(words, np.uint8)}
        return save(tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            InputError: the data is no such file, or is cut short.
        """
        try:
            arrays = load(data)
            tokens = bytes(arrays["tokens"]).decode().split("\n")
            steps, scale = arrays["steps"], arrays["scale"]
            if steps.dtype != np.int8 or steps.ndim != 2 or not len(steps) == len(scale) == len(tokens):
                raise ValueError(f"{len(tokens)} tokens, vectors {steps.shape} of {steps.dtype}, scales {scale.shape}")
        except (SafetensorError, KeyError, ValueError) as exc:
            raise InputError(f"no token vectors can be read ({exc}): {_CURE}") from exc
        return cls(Vocabulary(tokens), steps, scale)


@cache
def packaged_encoder() -> MeaningEncoder:
    """The encoder that ships with the package, read once.

    Raises:
        InputError: its file is missing or broken.
    """
    try:
        data = PACKAGED.read_bytes()
    except OSError as exc:
        raise InputError(f"the token vectors {PACKAGED} cannot be read ({exc.strerror}): {_CURE}") from exc
    return MeaningEncoder.from_bytes(data)
