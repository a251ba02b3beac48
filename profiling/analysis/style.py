"""How datasets are written, whatever they are about: a stated set of features, and their similarity.

Five families, the same for every text (nothing is chosen by looking at the data):

- words: rate of each of `FUNCTION_WORDS` among the words; a contraction counts as its parts ("it's": it, s);
- bigrams: rate of each pair of universal parts of speech among the pairs of neighbouring tokens;
- trigrams: the same of triples of six coarse classes (`COARSE`: nominal, verbal, modifier, function word,
  number, other), since triples of all tags would mostly be empty;
- characters: rates of each common mark, digits, capitals and line ends among the characters;
- readability: mean letters a word, tokens a sentence, syllables a word, and Flesch's reading ease
  (206.835 − 1.015 · words a sentence − 84.6 · syllables a word, held within −100 and 121.22, the score of
  one-word sentences of one syllable). Syllables are approximated: groups of vowels, less a silent final e.

A family weighs the same whatever its number of features.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from ...adapters import InputError
from ..statistics.similarity import Array, Similarity, cosines, similarity
from .linguistics import Syntax

_FUNCTION_WORDS = """
    a about after all also an and any are as at be because been before between both but by can could did
    do does each every for from had has have he her him his how i if in into is it its just may me might
    more most must my no nor not of on one only or other our over shall she should so some such than that
    the their them then there these they this those through to under until up us was we were what when
    where which while who whom whose why will with would you your
"""
FUNCTION_WORDS = tuple(_FUNCTION_WORDS.split())

_POS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"
POS = tuple(_POS.split())

COARSE = {
    **dict.fromkeys(("NOUN", "PROPN", "PRON"), "nominal"),
    **dict.fromkeys(("VERB", "AUX"), "verbal"),
    **dict.fromkeys(("ADJ", "ADV"), "modifier"),
    **dict.fromkeys(("ADP", "DET", "CCONJ", "SCONJ", "PART"), "function"),
    "NUM": "number",
}

_CLASSES = ("nominal", "verbal", "modifier", "function", "number", "other")
_MARKS = ".,;:!?'\"()[]{}<>-_/=+*#$%&@`"
_WORD = re.compile(r"[^\W\d_]+")
_VOWELS = re.compile(r"[aeiouy]+")

_BIGRAMS = tuple(product(POS, repeat=2))
_TRIGRAMS = tuple(product(_CLASSES, repeat=3))
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "word": FUNCTION_WORDS,
    "bigram": tuple(" ".join(pair) for pair in _BIGRAMS),
    "trigram": tuple(" ".join(triple) for triple in _TRIGRAMS),
    "character": (*_MARKS, "digit", "capital", "line end"),
    "readability": ("letters a word", "tokens a sentence", "syllables a word", "reading ease"),
}


@dataclass(frozen=True)
class StyleFeatures:
    """Style of texts: `values` (n_texts, f), a column for each of `names` such as "word: the"."""

    names: tuple[str, ...]
    values: Array


STYLE_NAMES = tuple(f"{family}: {name}" for family, names in _FAMILIES.items() for name in names)
"""The columns of every `StyleFeatures`, family by family."""


def style_features(texts: Sequence[str], parsed: Sequence[Syntax]) -> StyleFeatures:
    """Measure the style of each text; a text without words or characters has rates of 0.

    Raises:
        InputError: there is not one parse for each text.
    """
    if len(texts) != len(parsed):
        raise InputError(f"{len(texts)} texts with {len(parsed)} parses; wanted the parse of each text")
    rows = [_features(text, syntax) for text, syntax in zip(texts, parsed, strict=True)]
    return StyleFeatures(STYLE_NAMES, np.array(rows).reshape(len(rows), len(STYLE_NAMES)))


def style_similarity(features: Mapping[str, StyleFeatures], *, n_resamples: int = 200, seed: int = 0) -> Similarity:
    """Cosine of the datasets' mean features, standardised over the datasets, with split halves.

    A similarity is relative to the other datasets given: 0 is "as unlike as the average pair", and the
    average of a row is near 0 by construction. Two datasets alone would always be at −1.

    Raises:
        InputError: fewer than three datasets, or a dataset with fewer than two texts.
    """
    if len(features) < 3:
        raise InputError(f"{len(features)} datasets; style is standardised over the datasets and needs three or more")
    groups = {name: one.values for name, one in features.items()}
    return similarity(groups, _compare, n_resamples=n_resamples, seed=seed)


def _compare(means: Array) -> Array:
    return cosines(_standardised(means) * _weights())


def _standardised(means: Array) -> Array:
    """Standardise columns of (d, f); a feature that does not vary over the datasets says nothing."""
    spread = means.std(axis=0)
    return (means - means.mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)


def _weights() -> Array:
    """One over the root of the family's size, so that squared distances weigh the families alike."""
    sizes = [len(names) for names in _FAMILIES.values()]
    return np.repeat(1 / np.sqrt(sizes), sizes)


def _features(text: str, syntax: Syntax) -> list[float]:
    words = [word.lower() for word in _WORD.findall(text)]
    classes = [COARSE.get(tag, "other") for tag in syntax.pos]
    triples = zip(classes, classes[1:], classes[2:], strict=False)
    return [
        *_rates(words, FUNCTION_WORDS),
        *_rates(pairwise(syntax.pos), _BIGRAMS),
        *_rates(triples, _TRIGRAMS),
        *_rates(map(_character, text), _FAMILIES["character"]),
        *_readability(words, syntax),
    ]


def _rates(items: Iterable[object], names: Sequence[object]) -> list[float]:
    """Share of each of `names` among all items."""
    counts = Counter(items)
    total = counts.total()
    return [counts[name] / total if total else 0.0 for name in names]


def _character(character: str) -> str:
    if character.isdigit():
        return "digit"
    if character.isupper():
        return "capital"
    return "line end" if character == "\n" else character


def _readability(words: Sequence[str], syntax: Syntax) -> tuple[float, float, float, float]:
    if not words:
        return 0.0, 0.0, 0.0, 0.0
    sentences = max(1, syntax.sentences)
    syllables = sum(map(_syllables, words)) / len(words)
    ease = 206.835 - 1.015 * len(words) / sentences - 84.6 * syllables
    letters = sum(map(len, words)) / len(words)
    return letters, syntax.tokens / sentences, syllables, float(np.clip(ease, -100, 121.22))


def _syllables(word: str) -> int:
    """Approximate: groups of vowels, less a silent final e, and at least one."""
    groups = len(_VOWELS.findall(word))
    silent = word.endswith("e") and not word.endswith(("le", "ee", "ie", "oe", "ye")) and groups > 1
    return max(1, groups - silent)
