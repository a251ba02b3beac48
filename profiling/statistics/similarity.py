"""Similarity of datasets from a vector for each of their texts, with what sampling alone does to it.

The diagonal holds the split-half similarity: what two random halves of one dataset reach. It is the ceiling
for that dataset's row; a pair below it differs by more than the choice of texts. Values are those of these
texts: sampling noise in a mean vector lowers its cosine with every other, the less the more texts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...adapters import InputError
from .resampling import BOUNDS, bootstrap_means

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
    groups: Mapping[str, Array],
    compare: Compare,
    *,
    n_resamples: int = 200,
    n_splits: int = 20,
    seed: int = 0,
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
