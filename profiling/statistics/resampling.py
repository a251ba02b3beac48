"""Resampling of paired examples: bootstrap means, and the sign-flip permutation test.

Rows are examples and are drawn whole, so that columns (adapters, labels, a control beside its adapter)
keep what they share.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ...adapters import InputError

Array = NDArray[np.float64]

# Percentiles of every bootstrap interval: 95%, two-sided.
BOUNDS = (2.5, 97.5)
# Resampling weights held at once: 32 MB.
_CHUNK = 4_000_000


def bootstrap_means(values: Array, n_resamples: int, rng: np.random.Generator) -> Array:
    """Means (n_resamples, k) of rows of `values` (n, k) drawn with replacement, columns together."""
    n = len(values)
    equal = np.full(n, 1 / n)
    return np.concatenate([rng.multinomial(n, equal, size=size) @ values / n for size in _chunks(n_resamples, n)])


def flipped_means(values: Array, n_resamples: int, rng: np.random.Generator) -> Array:
    """Means (n_resamples, k) of `values` (n, k) when each row's sign is drawn anew, columns together."""
    n, total = len(values), values.sum(axis=0)
    return np.concatenate(
        [
            (2 * (rng.integers(0, 2, size=(size, n), dtype=np.int8) @ values) - total) / n
            for size in _chunks(n_resamples, n)
        ]
    )


def sign_flip_p(differences: Array, n_resamples: int, rng: np.random.Generator) -> Array:
    """Two-sided sign-flip p-values (k,) of the means of paired differences (n, k).

    Exact by the binomial in columns whose non-zero differences share one size.
    """
    sizes = np.abs(differences)
    one_size = np.all((sizes == 0) | (sizes == sizes.max(axis=0)), axis=0)
    p = sign_p(differences)
    if not one_size.all():
        drawn = differences[:, ~one_size]
        # Rounding must not make a tie with the observed mean look smaller than it.
        bar = np.abs(drawn.mean(axis=0)) - 1e-9 * np.abs(drawn).mean(axis=0)
        reached = np.abs(flipped_means(drawn, n_resamples, rng)) >= bar
        p[~one_size] = (reached.sum(axis=0) + 1) / (n_resamples + 1)
    return p


def paired(first: NDArray, second: NDArray) -> Array:
    """First less second, example by example, both (n,).

    Raises:
        InputError: the two are not as long as one another, empty, or not finite.
    """
    if first.shape != second.shape:
        raise InputError(
            f"paired scores have shapes {first.shape} and {second.shape}; measure both on the same examples"
        )
    with np.errstate(invalid="ignore"):  # an infinite likelihood less another is refused below
        return finite(first.astype(float) - second.astype(float))


def finite(values: ArrayLike) -> Array:
    """`values` as floats of shape (n,).

    Raises:
        InputError: there are none, they have another shape, or one is not finite.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise InputError(
            f"got values of shape {array.shape}, {int(np.sum(~np.isfinite(array)))} of them not finite; "
            "give one finite number an example, at least one"
        )
    return array


def sign_p(differences: Array) -> Array:
    """Two-sided sign test of each column of (n, k): exact, since the null share is a half."""
    positive, negative = (differences > 0).sum(axis=0), (differences < 0).sum(axis=0)
    tail = stats.binom.cdf(np.minimum(positive, negative), positive + negative, 0.5)
    return np.minimum(1.0, 2 * tail)


def _chunks(n_resamples: int, n: int) -> Iterator[int]:
    size = max(1, _CHUNK // n)
    for start in range(0, n_resamples, size):
        yield min(size, n_resamples - start)
