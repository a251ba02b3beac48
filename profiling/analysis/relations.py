"""Which dependency relations an adapter helps with: its success against the base model's, a relation a row.

arXiv 2509.13624 compares, over the texts that hold a relation, the success of the LoRA with that of the
base model, and reads the highest ratio (`oprd`) as a trait. Ratios of rare relations scatter widely, so each
comes with an interval and with a test of whether *this* relation differs from the texts at large.
A relation is also a sign of long texts; `length_bands` tests it among texts of like length only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from ...adapters import InputError
from ..statistics.resampling import BOUNDS, bootstrap_means
from .linguistics import Syntax, count_matrix

Array = NDArray[np.float64]

MIN_TEXTS = 10
"""A relation in fewer texts is left out: its ratio is mostly chance."""

SMOOTHING = 0.5
"""Added to both numbers of successes, since the base model may have none (Haldane's correction)."""


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
    relative: float
    """`ratio` over the ratio on all texts: above 1, the adapter gains more here than elsewhere."""
    p: float
    """Two-sided permutation p of `ratio` when the relation is in other texts; 1 where every text holds it."""
    q: float
    """`p` after Benjamini-Hochberg over the relations that can be tested."""


def relation_success(
    parsed: Sequence[Syntax],
    adapter_correct: ArrayLike,
    base_correct: ArrayLike,
    *,
    min_texts: int = MIN_TEXTS,
    length_bands: int = 1,
    n_resamples: int = 2000,
    n_permutations: int = 4999,
    seed: int = 0,
) -> list[RelationRatio]:
    """Success ratio of each relation in at least `min_texts` texts, the highest first.

    `adapter_correct` and `base_correct` (n,) are booleans, an example each. With `length_bands` above 1,
    the test exchanges outcomes only between texts of one length band (quantiles of the token counts).

    Raises:
        InputError: the three have different lengths, or there are no texts.
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
    bands = _bands(np.array([p.tokens for p in parsed]), length_bands)
    p = _p_values(outcomes, holds, bands, n_permutations, random)
    q = _q_values(p, testable=holds.sum(axis=0) < len(parsed))
    texts, overall = holds.sum(axis=0), _ratio(outcomes.sum(axis=1))
    rows = [
        RelationRatio(
            relation=names[kept[j]],
            texts=int(texts[j]),
            adapter=float(successes[0, j] / texts[j]),
            base=float(successes[1, j] / texts[j]),
            ratio=float(ratios[j]),
            low=float(low[j]),
            high=float(high[j]),
            relative=float(ratios[j] / overall),
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
    # A text more that only the adapter gets right, and one that only base does: else nothing varies where both fail on all.
    outcomes = np.hstack([outcomes, np.eye(2)])
    holds = np.vstack([holds, np.ones((2, holds.shape[1]))])
    n, n_relations = holds.shape
    successes = np.hstack([outcome[:, None] * holds for outcome in outcomes])
    drawn = n * bootstrap_means(successes, n_resamples, random)
    ratios = _ratio(np.stack([drawn[:, :n_relations], drawn[:, n_relations:]]))
    low, high = np.percentile(ratios, BOUNDS, axis=0)
    return low, high


def _bands(tokens: NDArray[np.intp], n_bands: int) -> list[NDArray[np.intp]]:
    """Indices of the texts of each length band, shortest first."""
    order = np.argsort(tokens, kind="stable")
    return [band for band in np.array_split(order, max(1, n_bands)) if len(band)]


def _p_values(
    outcomes: Array,
    holds: Array,
    bands: list[NDArray[np.intp]],
    n_permutations: int,
    random: np.random.Generator,
) -> Array:
    """Two-sided p of each relation's ratio; an example's two outcomes stay together."""
    observed = _ratio(outcomes @ holds)
    above, below = np.ones(len(observed)), np.ones(len(observed))
    order = np.arange(outcomes.shape[1])
    for _ in range(n_permutations):
        for band in bands:
            order[band] = random.permutation(band)
        ratio = _ratio(outcomes[:, order] @ holds)
        above += ratio >= observed - 1e-12
        below += ratio <= observed + 1e-12
    return np.minimum(1.0, 2 * np.minimum(above, below) / (n_permutations + 1))


def _q_values(p: Array, *, testable: NDArray[np.bool_]) -> Array:
    """Relations that every text holds (such as `ROOT`) are no test and count for none."""
    q = np.ones_like(p)
    if testable.any():
        q[testable] = false_discovery_control(p[testable])
    return q
