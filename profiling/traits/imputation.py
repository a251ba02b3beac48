"""Missing cells of a gains matrix, filled from the few components that the measured cells share.

Regularised iterative PCA (Josse & Husson 2012): fill with the tasks' means, fit k components, replace the
missing cells by what these predict, repeat. The singular values are shrunk by what noise adds to them;
without that the filled cells follow the noise of the measured ones. The rank k is the one that best
predicts measured cells that were hidden; 0, the task's mean, is among the candidates and often wins.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold

Array = NDArray[np.float64]
LARGEST_RANK = 5
_FOLDS = 5
_ITERATIONS = 200
_TOLERANCE = 1e-3


def choose_rank(matrix: Array, *, random_state: int | None = 0) -> int:
    """Rank with the least squared error on hidden cells of `matrix` (rows, columns), NaN where missing.

    Between 0 and `LARGEST_RANK`, the smaller of equals; needs a measured cell in every row and column.
    """
    largest = max(0, min(LARGEST_RANK, matrix.shape[0] - 2, matrix.shape[1] - 1))
    cells = np.argwhere(~np.isnan(matrix))
    folds = KFold(min(_FOLDS, len(cells)), shuffle=True, random_state=random_state).split(cells)
    hidden = [_hide(matrix, cells[test]) for _, test in folds]

    def error(rank: int) -> float:
        filled = [complete(visible, rank)[tested] - matrix[tested] for visible, tested in hidden]
        return float(np.sum(np.concatenate(filled) ** 2))

    return min(range(largest + 1), key=error)


def complete(matrix: Array, rank: int) -> Array:
    """Fill the NaN of `matrix` (rows, columns) by `rank` components; measured cells stay as they are."""
    missing = np.isnan(matrix)
    filled = np.where(missing, np.nanmean(matrix, axis=0), matrix)
    if rank == 0 or not missing.any():
        return filled
    step = _TOLERANCE * np.nanstd(matrix)
    for _ in range(_ITERATIONS):
        predicted = _low_rank(filled, rank)[missing]
        change = np.abs(predicted - filled[missing]).max()
        filled[missing] = predicted
        if change <= step:
            break
    return filled


def noise_variance(singular: NDArray[Any], rank: int, shape: tuple[int, int]) -> float:
    """Variance per cell that `rank` components leave in a centred matrix of `shape`; 0 where none can be."""
    rows, columns = shape
    freedom = (rows - 1 - rank) * (columns - rank)
    return float(np.sum(singular[rank:] ** 2)) / freedom if freedom > 0 else 0.0


def _low_rank(filled: Array, rank: int) -> Array:
    mean = filled.mean(axis=0)
    left, singular, right = np.linalg.svd(filled - mean, full_matrices=False)
    # Noise of variance v adds about v times the longer side to every squared singular value.
    noise = noise_variance(singular, rank, filled.shape) * max(len(filled) - 1, filled.shape[1])
    kept = np.maximum(singular[:rank], np.finfo(float).tiny)
    shrunk = np.maximum(kept - min(noise, singular[rank] ** 2) / kept, 0)
    return mean + left[:, :rank] * shrunk @ right[:rank]


def _hide(matrix: Array, cells: NDArray[np.intp]) -> tuple[Array, NDArray[np.bool_]]:
    """`matrix` without `cells`, and which were hidden: never the last of a row or a column."""
    visible, hidden = matrix.copy(), np.zeros(matrix.shape, dtype=bool)
    for row, column in cells:
        visible[row, column] = np.nan
        if np.isnan(visible[row]).all() or np.isnan(visible[:, column]).all():
            visible[row, column] = matrix[row, column]
        else:
            hidden[row, column] = True
    return visible, hidden
