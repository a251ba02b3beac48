"""Rows of gains predicted from the rows of others, by how alike adapters are; and how good such rows are.

A row is the mean row of the others and what a ridge over a likeness (a kernel, as in kriging) adds to it. The penalty
is chosen by leaving out one of the others at a time, in closed form; without end it leaves the mean row.
"""

from collections.abc import Sequence

import numpy as np
from interval import Interval
from numpy.typing import NDArray

Array = NDArray[np.float64]
PENALTIES = np.append(np.logspace(-2, 3, 11), np.inf)
"""In units of the kernel's mean diagonal."""
DRAWS = 4000


def mixed(kernels: Sequence[Array]) -> Array:
    """The mean of kernels (a, a), each with its mean row taken away and of mean diagonal 1, so that all weigh alike."""
    found = []
    for kernel in kernels:
        about = np.eye(len(kernel)) - 1 / len(kernel)
        centred = about @ kernel @ about
        found.append(centred / max(float(np.diag(centred).mean()), 1e-12))
    return np.mean(found, axis=0)


def predicted(kernel: Array, gains: Array, new: int) -> Array:
    """The row (tasks,) of adapter `new` from the gains (a, tasks) of all others, by the likeness of all (a, a)."""
    rest = np.flatnonzero(np.arange(len(kernel)) != new)
    known, mean = kernel[np.ix_(rest, rest)], gains[rest].mean(axis=0)
    about = np.eye(len(rest)) - 1 / len(rest)
    values, vectors = np.linalg.eigh(about @ known @ about)
    values = np.maximum(values, 0) / max(float(values.mean()), 1e-12)
    turned = vectors.T @ (gains[rest] - mean)
    errors = [_left_out_error(values, vectors, turned, gains[rest] - mean, p) for p in PENALTIES]
    penalty = PENALTIES[int(np.argmin(errors))]
    if np.isinf(penalty):
        return mean
    near = (
        about
        @ (kernel[new, rest] - known.mean(axis=0))
        / max(float(np.trace(about @ known @ about)) / len(rest), 1e-12)
    )
    return mean + (near @ vectors / (values + penalty)) @ turned


def _left_out_error(values: Array, vectors: Array, turned: Array, gains: Array, penalty: float) -> float:
    """Squared error over all rows, each predicted from the others."""
    shrunk = values / (values + penalty)
    fitted = (vectors * shrunk) @ turned
    own = 1 / len(gains) + (vectors**2 * shrunk).sum(axis=1)
    return float((((gains - fitted) / (1 - own)[:, None]) ** 2).sum())


def nearest(kernel: Array, gains: Array, new: int) -> Array:
    """The row of the adapter that is most like `new`."""
    likeness = np.where(np.arange(len(kernel)) == new, -np.inf, kernel[new])
    return gains[int(likeness.argmax())]


def ratio(above: Array, below: Array, seed: int = 0) -> Interval:
    """Sum of `above` (a,) over the sum of `below` (a,), adapters drawn with replacement."""
    draws = np.random.default_rng(seed).integers(0, len(above), (DRAWS, len(above)))
    found = above[draws].sum(axis=1) / np.maximum(below[draws].sum(axis=1), 1e-12)
    return Interval.of(above.sum() / max(below.sum(), 1e-12), found)


def squared_error(rows: Array, truth: Array) -> Array:
    """Of each row, (a,)."""
    return ((rows - truth) ** 2).sum(axis=1)


def correlations(rows: Array, truth: Array) -> Array:
    """Of each row with the true one over tasks, (a,); 0 where a row is the same everywhere."""
    centred = [each - each.mean(axis=1, keepdims=True) for each in (rows, truth)]
    length = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    return np.where(length > 1e-12, (centred[0] * centred[1]).sum(axis=1) / np.maximum(length, 1e-12), 0.0)
