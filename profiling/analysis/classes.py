"""Class habits: how even the labels are, which ones a model prefers, and how training moved that.

Labels are indices into the *target* task's labels; -1 in predictions is an answer that names none of
them, as in `Outcomes.predicted_label`, and is counted, never dropped. An adapter whose source has other
labels shows there as unlabelled answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from ...adapters import InputError
from ..statistics.significance import flipped_means, score_bounds, wilson

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ClassSummary:
    """How evenly classes are filled: `counts` and `shares` (labels,), without the `unlabelled`.

    `normalised_entropy` is in [0, 1], 1 where all classes are equal and 0 with one class alone.
    `imbalance` is the largest share over the smallest: infinite where a class is absent.
    """

    labels: tuple[str, ...]
    counts: Indices
    shares: Array
    unlabelled: int
    entropy_bits: float
    normalised_entropy: float
    imbalance: float


@dataclass(frozen=True)
class Confusion:
    """Counts (labels, labels + 1): rows are true, columns predicted, the last is "no label".

    `recall` and `precision` (labels,) have Wilson bounds (labels, 2) at 95%; a share of nothing is NaN
    and its bounds are (0, 1). `balanced_accuracy` is the mean recall of the classes that occur. `kappa`
    counts "no label" as a disagreement and is NaN where chance alone would agree everywhere.
    """

    labels: tuple[str, ...]
    counts: Indices
    recall: Array
    recall_bounds: Array
    precision: Array
    precision_bounds: Array
    balanced_accuracy: float
    kappa: float


@dataclass(frozen=True)
class PriorShift:
    """Predicted less true shares of each label, the last entry being "no label": (labels + 1,).

    `adapter_bounds` and `base_bounds` (labels + 1, 2) are 95% bounds over examples.
    `adapter_distance` and `base_distance` are total variation distances from the true shares, `moved`
    that between adapter and base. `p` tests `moved` by swapping adapter and base within examples.
    """

    labels: tuple[str, ...]
    adapter: Array
    adapter_bounds: Array
    base: Array
    base_bounds: Array
    adapter_distance: float
    base_distance: float
    moved: float
    p: float


def summarise(classes: ArrayLike, labels: Sequence[str]) -> ClassSummary:
    """Describe how evenly `classes` (n,), indices into `labels` or -1, are filled.

    Raises:
        InputError: an index names no label, or none of `classes` has a label.
    """
    indices = _indices(classes, labels, unlabelled=True)
    counts = np.bincount(indices[indices >= 0], minlength=len(labels))
    if not counts.sum():
        raise InputError("no example has a label; check the task's label column and its labels")
    shares = counts / counts.sum()
    bits = float(stats.entropy(shares, base=2))
    return ClassSummary(
        labels=tuple(labels),
        counts=counts,
        shares=shares,
        unlabelled=int(np.sum(indices < 0)),
        entropy_bits=bits,
        normalised_entropy=bits / np.log2(len(labels)) if len(labels) > 1 else 0.0,
        imbalance=float(shares.max() / shares.min()) if shares.min() > 0 else np.inf,
    )


def confusion(true: ArrayLike, predicted: ArrayLike, labels: Sequence[str]) -> Confusion:
    """Set true against predicted classes, both (n,), with intervals.

    Raises:
        InputError: an index names no label, or the two are not as long as one another.
    """
    gold, predicted = _pair(true, predicted, labels)
    columns = [*range(len(labels)), -1]
    counts = confusion_matrix(gold, predicted, labels=columns)[:-1]
    right = counts.diagonal()
    of_true, of_said = counts.sum(axis=1), counts.sum(axis=0)[:-1]
    recall = _shares(right, of_true)
    # Where both hold one and the same class, chance agrees fully and kappa is 0/0.
    one_class = len(set(gold) | set(predicted)) == 1
    return Confusion(
        labels=tuple(labels),
        counts=counts,
        recall=recall,
        recall_bounds=np.stack(wilson(right, of_true), axis=1),
        precision=_shares(right, of_said),
        precision_bounds=np.stack(wilson(right, of_said), axis=1),
        balanced_accuracy=float(np.nanmean(recall)),
        kappa=np.nan if one_class else float(cohen_kappa_score(gold, predicted, labels=columns)),
    )


def prior_shift(
    adapter: ArrayLike,
    base: ArrayLike,
    true: ArrayLike,
    labels: Sequence[str],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> PriorShift:
    """Which labels an adapter and its base model predict more or less often than they are true.

    The test is a permutation, not the chi-square of Stuart and Maxwell, which small counts break: if
    training moved no prior, each example's two predictions may be swapped; p = (b + 1) / (B + 1).

    Raises:
        InputError: an index names no label, or the three are not as long as one another.
    """
    gold, predicted = _pair(true, adapter, labels)
    _, base_predicted = _pair(true, base, labels)
    truth, hot, base_hot = (_one_hot(x, len(labels)) for x in (gold, predicted, base_predicted))
    rng = np.random.default_rng(seed)
    excess = np.concatenate([hot - truth, base_hot - truth], axis=1)
    bounds = np.stack(score_bounds(excess), axis=1)
    shift, base_shift = np.split(excess.mean(axis=0), 2)
    moved = _distance(shift - base_shift)
    swapped = _distance(flipped_means(hot - base_hot, n_resamples, rng))
    return PriorShift(
        labels=tuple(labels),
        adapter=shift,
        adapter_bounds=bounds[: len(shift)],
        base=base_shift,
        base_bounds=bounds[len(shift) :],
        adapter_distance=float(_distance(shift)),
        base_distance=float(_distance(base_shift)),
        moved=float(moved),
        p=float((np.sum(swapped >= moved - 1e-9) + 1) / (n_resamples + 1)),
    )


def _distance(shift: Array) -> Array:
    """Total variation distance of distributions that differ by `shift` (..., labels)."""
    return np.abs(shift).sum(axis=-1) / 2


def _one_hot(classes: Indices, n_labels: int) -> Array:
    """Indicators (n, labels + 1); -1 falls on the last column."""
    return np.eye(n_labels + 1)[classes]


def _shares(part: Indices, whole: Indices) -> Array:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _pair(true: ArrayLike, predicted: ArrayLike, labels: Sequence[str]) -> tuple[Indices, Indices]:
    gold = _indices(true, labels, unlabelled=False)
    predicted = _indices(predicted, labels, unlabelled=True)
    if len(gold) != len(predicted):
        raise InputError(
            f"got {len(gold)} true and {len(predicted)} predicted classes; give both for the same examples"
        )
    return gold, predicted


def _indices(classes: ArrayLike, labels: Sequence[str], *, unlabelled: bool) -> Indices:
    indices = np.asarray(classes)
    least = -1 if unlabelled else 0
    if indices.ndim != 1 or not indices.size or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(
            f"got classes of shape {indices.shape} and type {indices.dtype}; give one label index an example"
        )
    if indices.min() < least or indices.max() >= len(labels):
        raise InputError(
            f"class indices lie in [{indices.min()}, {indices.max()}] where {len(labels)} labels allow "
            f"[{least}, {len(labels) - 1}]; give indices into the target task's labels"
        )
    return indices.astype(np.int64)
