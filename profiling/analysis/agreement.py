"""Do two matrices agree, and do two profiles: other base models or training methods on the same sources and tasks.

Two matrices are compared by a rank correlation with a permutation test (Mantel). Their cells are not independent, since
they share rows and columns, so whole rows are permuted, never cells.

Two profiles are cut to the adapters and tasks that both measured, and traits are fitted anew on these, since components
depend on which tasks were measured. Signs, order and rotation of components are arbitrary, so traits are compared as
spaces: Procrustes disparity and canonical correlations of the trait scores (which adapters supply what), principal
angles of the loadings (which tasks go together). A few components of a few adapters resemble each other by chance: two
spaces of dimension k in one of less than 2k must even share directions. So every figure stands beside a permutation
null: the adapters of the second side shuffled, and for the loadings its tasks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import subspace_angles
from scipy.spatial import procrustes
from scipy.stats import permutation_test, rankdata

from ...adapters import InputError, ProfileSummary
from ..statistics.significance import BOUNDS
from ..traits.space import principal_components

Array = NDArray[np.float64]
Verdict = Literal["agree", "not shown", "too few"]

MIN_ADAPTERS, MIN_TASKS = 4, 3
"""Below this even identical profiles could be equal by chance: 3 adapters have 6 orders."""
ENOUGH_ADAPTERS = 8
"""Fewer seldom show even a true agreement, so that silence says nothing. Simulated with two traits on ten
tasks and noise as large as the signal: 16% of true agreements are shown with 4 adapters, 32% with 5, 54% with
6, 79% with 8 and 86% with 10; with half that noise 42%, 91%, 96%, 100% and 100%."""
ALPHA = 0.05
N_RESAMPLES = 2000


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


@dataclass(frozen=True)
class ProfiledGains:
    """What of a profile is compared: `gains` (adapters, tasks), NaN where not measured, and `n_traits`."""

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    gains: Array
    n_traits: int

    @classmethod
    def of(cls, summary: ProfileSummary) -> Self:
        """The gains of a stored profile."""
        return cls(summary.adapters, summary.tasks, summary.gains, summary.traits.n_traits)

    def part(self, adapters: Sequence[str], tasks: Sequence[str]) -> Array:
        """Gains of these adapters on these tasks, in this order."""
        rows = [self.adapters.index(name) for name in adapters]
        return self.gains[np.ix_(rows, [self.tasks.index(name) for name in tasks])]


@dataclass(frozen=True)
class Permuted:
    """A figure, the median it has when one side is shuffled, and p: how often that is as good."""

    value: float
    null_median: float
    p: float


@dataclass(frozen=True)
class Ranked(Permuted):
    """A mean rank correlation, with its 95% bootstrap interval over tasks."""

    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How far two profiles agree on what both measured."""

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    n_traits: int
    """Components compared: the larger count of traits, at least 2, as far as the ranks allow."""
    disparity: Permuted
    """Of trait scores after the best shift, scale and rotation; 0: the same, 1: nothing in common."""
    canonical: Permuted
    """Mean squared canonical correlation of the trait scores, in [0, 1]."""
    loadings: Permuted
    """Mean squared cosine of the angles between the spaces of loadings, in [0, 1]; tasks are shuffled."""
    gains: Mantel
    """Rank correlation of all gains; its null keeps what targets have in common."""
    gains_interval: tuple[float, float]
    """95%, by bootstrap over tasks."""
    columns: Ranked
    """Mean of `by_task`: is it the same adapters that gain most on a task?"""
    rows: Ranked
    """Mean of `by_adapter`: is it on the same tasks that an adapter gains more than others?"""
    canonical_correlations: Array
    """(n_traits,), largest first."""
    loading_angles: Array
    """(n_traits,) in degrees, smallest first."""
    by_task: Array
    """(tasks,): rank correlation over adapters; NaN, in means 0, where one side's gains are all equal."""
    by_adapter: Array
    """(adapters,): rank correlation over tasks of gains less the task's mean; NaN as above."""

    @property
    def verdict(self) -> Verdict:
        """By the trait scores' disparity alone, one test named in advance."""
        if self.disparity.p <= ALPHA:
            return "agree"
        return "too few" if len(self.adapters) < ENOUGH_ADAPTERS else "not shown"

    @property
    def conclusion(self) -> str:
        """The verdict in one sentence."""
        d = self.disparity
        seen = f"disparity {d.value:.2f}, by chance {d.null_median:.2f}, p = {d.p:.3g}"
        shape = f"{len(self.adapters)} common adapters and {len(self.tasks)} common tasks"
        if self.verdict == "agree":
            return f"The traits agree more than by chance on {shape} ({seen})."
        if self.verdict == "too few":
            return (
                f"Too few to tell: {shape} ({seen}); fewer than {ENOUGH_ADAPTERS} adapters seldom "
                "show an agreement even where there is one."
            )
        cells = (
            "the gains themselves do agree"
            if self.gains.p <= ALPHA and self.gains.r > self.gains.null_mean
            else "nor is it for the gains themselves"
        )
        return f"Agreement of the traits is not shown on {shape} ({seen}); {cells} (p = {self.gains.p:.3g})."


def agreement(a: ProfiledGains, b: ProfiledGains, *, n_permutations: int = 9999, seed: int = 0) -> Agreement:
    """Compare two profiles on their common adapters and tasks, matched by name.

    Raises:
        InputError: too few are common, or one side's gains do not vary.
    """
    adapters, tasks = common(a, b)
    first, second = a.part(adapters, tasks), b.part(adapters, tasks)
    (scores_a, loadings_a), (scores_b, loadings_b) = _traits(first), _traits(second)
    k = min(max(a.n_traits, b.n_traits, 2), scores_a.shape[1], scores_b.shape[1])
    scores_a, scores_b = scores_a[:, :k], scores_b[:, :k]
    loadings_a, loadings_b = loadings_a[:, :k], loadings_b[:, :k]
    options: dict[str, Any] = {"n_permutations": n_permutations, "seed": seed}
    centred = first - first.mean(axis=0), second - second.mean(axis=0)
    by_task = rankdata(first, axis=0), rankdata(second, axis=0)
    by_adapter = rankdata(centred[0], axis=1), rankdata(centred[1], axis=1)
    drawn = np.random.default_rng(seed).integers(len(tasks), size=(N_RESAMPLES, len(tasks)))
    return Agreement(
        adapters=adapters,
        tasks=tasks,
        n_traits=k,
        disparity=permuted(_disparity, scores_a, scores_b, "less", **options),
        canonical=permuted(_shared_space, scores_a, scores_b, "greater", **options),
        loadings=permuted(_shared_space, loadings_a, loadings_b, "greater", **options),
        gains=mantel(first, second, **options),
        gains_interval=_bounds([_spearman(first[:, draw], second[:, draw])[0] for draw in drawn]),
        columns=_ranked(lambda a, b: _correlations(a, b, axis=0), by_task, drawn, **options),
        rows=_ranked(lambda a, b: _correlations(a, b, axis=1), by_adapter, drawn, **options),
        canonical_correlations=np.cos(subspace_angles(scores_a, scores_b))[::-1],
        loading_angles=np.degrees(subspace_angles(loadings_a, loadings_b))[::-1],
        by_task=_correlations(*by_task, axis=0),
        by_adapter=_correlations(*by_adapter, axis=1),
    )


def common(a: ProfiledGains, b: ProfiledGains) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adapters of both sides, and the tasks that both measured on all of them, in the order of `a`.

    Raises:
        InputError: fewer than 4 adapters or 3 tasks.
    """
    adapters = tuple(name for name in a.adapters if name in b.adapters)
    shared = [name for name in a.tasks if name in b.tasks]
    measured = np.isfinite(np.vstack([side.part(adapters, shared) for side in (a, b)]))
    tasks = tuple(name for j, name in enumerate(shared) if measured[:, j].all())
    if len(adapters) < MIN_ADAPTERS or len(tasks) < MIN_TASKS:
        raise InputError(
            f"{len(adapters)} adapters and {len(tasks)} completely measured tasks are common by name; "
            f"wanted at least {MIN_ADAPTERS} and {MIN_TASKS}: profile both from the same suite "
            f"(adapters here: {', '.join(a.adapters)}; there: {', '.join(b.adapters)})"
        )
    return adapters, tasks


def _traits(gains: Array) -> tuple[Array, Array]:
    """Trait scores (adapters, r) and loadings (tasks, r) of complete gains."""
    centred = gains - gains.mean(axis=0)
    if np.allclose(centred, 0):
        raise InputError(
            "on one side every adapter has the same gains: no traits to compare; profile with adapters that differ"
        )
    _, loadings = principal_components(gains)
    return centred @ loadings.T, loadings.T


def _disparity(a: Array, b: Array) -> float:
    return float(procrustes(a, b)[2])


def _shared_space(a: Array, b: Array) -> float:
    """Mean squared cosine of the principal angles between the column spaces."""
    return float(np.mean(np.cos(subspace_angles(a, b)) ** 2))


def permuted(
    statistic: Callable[[Array, Array], float],
    a: Array,
    b: Array,
    better: Literal["less", "greater"],
    *,
    n_permutations: int,
    seed: int,
) -> Permuted:
    """Test `statistic` of two sides with the rows of `b` shuffled: all orders where they are few, else a sample."""
    tested = permutation_test(
        (np.arange(len(b)),),
        lambda order: statistic(a, b[order.astype(np.intp)]),
        permutation_type="pairings",
        alternative=better,
        n_resamples=n_permutations,
        random_state=np.random.default_rng(seed),
    )
    null = float(np.median(tested.null_distribution))
    return Permuted(float(tested.statistic), null, float(tested.pvalue))


def _ranked(
    correlate: Callable[[Array, Array], Array],
    sides: tuple[Array, Array],
    drawn: NDArray[np.intp],
    *,
    n_permutations: int,
    seed: int,
) -> Ranked:
    """Test the mean of rank correlations, the adapters of one side shuffled; its interval is over the tasks `drawn`."""
    a, b = sides

    def mean(x: Array, y: Array) -> float:
        return float(np.nan_to_num(correlate(x, y)).mean())

    test = permuted(mean, a, b, "greater", n_permutations=n_permutations, seed=seed)
    bounds = _bounds([mean(a[:, draw], b[:, draw]) for draw in drawn])
    return Ranked(test.value, test.null_median, test.p, *bounds)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.nanpercentile(values, BOUNDS)
    return float(low), float(high)


def _correlations(a: Array, b: Array, *, axis: int) -> Array:
    """Pearson's r along an axis, NaN where one side is constant."""
    x, y = (side - side.mean(axis=axis, keepdims=True) for side in (a, b))
    spread = np.sqrt(np.sum(x**2, axis=axis) * np.sum(y**2, axis=axis))
    return np.divide(np.sum(x * y, axis=axis), spread, out=np.full(spread.shape, np.nan), where=spread > 1e-12)
