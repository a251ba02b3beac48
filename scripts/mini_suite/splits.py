"""Whether a test text is a train text again, perhaps with one word exchanged.

Each text is filed under itself and under every copy of itself with one word masked: two texts meet
under some key exactly when they are equal or differ in one word, so no pair is ever compared.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The casefolded alphanumeric tokens of a text."""
    return _WORD.findall(text.casefold())


def masks(text: str) -> Iterator[str]:
    """The text's words joined, then once for each word with that word masked."""
    tokens = words(text)
    yield " ".join(tokens)
    for place in range(len(tokens)):
        yield " ".join([*tokens[:place], "_", *tokens[place + 1 :]])


def mask_set(texts: Iterable[str]) -> set[str]:
    """Every mask of every text: what a test text must not meet."""
    return {mask for text in texts for mask in masks(text)}


def near_duplicates(train: Sequence[str], test: Sequence[str]) -> list[tuple[str, str]]:
    """The (test, train) pairs whose word sequences are equal or differ by one word exchanged."""
    filed: defaultdict[str, list[str]] = defaultdict(list)
    for text in dict.fromkeys(train):
        for mask in masks(text):
            filed[mask].append(text)
    pairs = ((text, twin) for text in test for mask in masks(text) for twin in filed.get(mask, ()))
    return list(dict.fromkeys(pairs))
