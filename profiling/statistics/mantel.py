"""Do two matrices agree? A rank correlation with a permutation test (Mantel).

The cells of a matrix are not independent: they share their rows and columns. So whole rows are permuted,
never cells. This is how "similarity of style and meaning does not explain the gains" is put to the test.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ...adapters import InputError
from .resampling import BOUNDS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mantel:
    """Spearman's correlation of two matrices' cells, and how often permuted rows give one as far out."""

    r: float
    p: float
    """Two-sided, about the mean of the null."""
    null_mean: float
    """Mean of r under permutation: what common column effects (an easy target) give by themselves."""
    null_low: float
    null_high: float
    """Between them lie 95% of the permuted r."""
    cells: int
    """Cells compared."""
    permutations: int


def mantel(a: ArrayLike, b: ArrayLike, *, n_permutations: int = 9999, seed: int = 0) -> Mantel:
    """Correlate `a` and `b`, both (rows, columns); cells that are NaN in either are left out.

    Two symmetric matrices are compared by the cells above the diagonal, and the permutation moves the rows
    and columns of `b` together. Others, such as gains (sources, targets) against similarity, are compared
    by all cells, and it moves the rows of `b`: which source is which. For a source that is also a target
    set both cells to NaN. All permutations are taken where they are no more than `n_permutations`.

    Raises:
        InputError: unequal shapes, fewer than three rows, or a matrix whose compared cells are all equal.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    _check(first, second)
    paired = _symmetric(first) and _symmetric(second)
    left = np.where(np.triu(np.ones(first.shape), k=1) > 0, first, np.nan) if paired else first
    r, cells = _spearman(left, second)
    if math.isnan(r):
        raise InputError(f"{cells} cells to compare, all of one matrix equal: wanted two matrices that vary")
    null = [
        _spearman(left, second[np.ix_(order, order)] if paired else second[order])[0]
        for order in _orders(len(first), n_permutations, np.random.default_rng(seed))
    ]
    return _result(r, np.nan_to_num(null), cells, exact=_exact(len(first), n_permutations))


def _result(r: float, null: Array, cells: int, *, exact: bool) -> Mantel:
    centre = float(null.mean())
    further = int(np.sum(np.abs(null - centre) >= abs(r - centre) - 1e-12))
    # All permutations hold the observed order; a sample of them does not, and it is counted in.
    p = further / len(null) if exact else (further + 1) / (len(null) + 1)
    low, high = np.percentile(null, BOUNDS)
    return Mantel(r, p, centre, float(low), float(high), cells, len(null))


def _check(a: Array, b: Array) -> None:
    if a.ndim != 2 or a.shape != b.shape or len(a) < 3:
        raise InputError(f"matrices of shapes {a.shape} and {b.shape}; wanted equal shapes with three rows or more")


def _symmetric(matrix: Array) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.allclose(matrix, matrix.T, equal_nan=True)


def _spearman(a: Array, b: Array) -> tuple[float, int]:
    """Spearman's r over the cells that both matrices have, and their number; NaN where one is constant."""
    both = np.isfinite(a) & np.isfinite(b)
    cells = int(both.sum())
    if cells < 2:
        return math.nan, cells
    x, y = (rankdata(m[both]) - (cells + 1) / 2 for m in (a, b))
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return (float(x @ y) / spread if spread > 0 else math.nan), cells


def _exact(n: int, n_permutations: int) -> bool:
    return math.factorial(n) <= n_permutations


def _orders(n: int, n_permutations: int, random: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    if _exact(n, n_permutations):
        yield from (np.array(order) for order in permutations(range(n)))
        return
    yield from (random.permutation(n) for _ in range(n_permutations))
