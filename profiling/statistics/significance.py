"""Which gains and side effects are real: intervals, paired tests against the base model, false-discovery control.

Every test is the sign-flip permutation test of paired differences: adapter and base model are exchangeable on each
example. Where all non-zero differences share one size, as for right-or-wrong answers, its exact form is the binomial on
discordant pairs, which is McNemar's exact test; elsewhere flips are drawn and p = (b + 1) / (B + 1). Benjamini-Hochberg
then runs over the whole family of cells. It is proved for independent and some positively dependent tests; cells of one
task depend on each other through the base model's answers, and a test simulates that case.

Rows are examples and are drawn whole, so that columns (adapters, labels, a control beside its adapter) stay paired.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ...adapters import InputError, Outcomes, PairedOutcomes
from ...serving.measured import paired_interval
from ..tasks.scoring import Scores, example_scores, score_on

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


GAIN, SIDE_EFFECT, NOT_SHOWN, NOT_MEASURED = VERDICTS = ("gain", "side effect", "not shown", "not measured")


@dataclass(frozen=True)
class Interval:
    """A mean, its 95% bounds, and the two-sided p-value of its being zero."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class GainTests:
    """Paired comparisons, every array of shape (adapters, tasks); NaN where a cell is not measured.

    `gain` is a mean difference per example: in [-1, 1] for scores, and there a share of examples where each is right or
    wrong; nats per target token for "likelihood". `low` and `high` bound it at 95%, cell by cell, not jointly.
    `q_value` is the smallest false-discovery rate at which
    the cell would be called; `verdict` calls it at `q`. `examples` (tasks,) are counts.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    gain: Array
    low: Array
    high: Array
    p: Array
    q_value: Array
    verdict: NDArray[np.str_]
    examples: NDArray[np.int64]
    q: float

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells with each verdict."""
        return {word: int(np.sum(self.verdict == word)) for word in VERDICTS}

    @property
    def called(self) -> NDArray[np.bool_]:
        """Cells that are a gain or a side effect."""
        return np.isin(self.verdict, (GAIN, SIDE_EFFECT))

    @property
    def largest(self) -> tuple[int, int]:
        """Adapter and task of the largest called cell, by index."""
        i, j = np.unravel_index(int(np.where(self.called, np.abs(self.gain), -1).argmax()), self.gain.shape)
        return int(i), int(j)

    def row(self, i: int, j: int) -> dict[str, int | float | str]:
        """The cell of adapter `i` on task `j` as columns of a table."""
        figures = {k: float(getattr(self, k)[i, j]) for k in ("gain", "low", "high", "p", "q_value")}
        return {"examples": int(self.examples[j]), **figures, "verdict": str(self.verdict[i, j])}


def wilson(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Wilson score bounds of `successes` out of `n`, elementwise; (0, 1) where n is 0.

    Raises:
        InputError: a count of successes is negative or above n.
    """
    k, total = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    if np.any((k < 0) | (k > total)):
        raise InputError("successes must lie between 0 and n; count them over the same examples")
    z = float(stats.norm.ppf((1 + level) / 2))
    known = np.maximum(total, 1)
    share = k / known
    center = (share + z**2 / (2 * known)) / (1 + z**2 / known)
    spread = np.sqrt(share * (1 - share) / known + (z / (2 * known)) ** 2) * z / (1 + z**2 / known)
    low = np.where(k == 0, 0.0, center - spread)
    high = np.where(k == total, 1.0, center + spread)
    return low, high


def paired_bootstrap(differences: ArrayLike, *, n_resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of paired differences (n,), its bootstrap interval and its sign-flip p-value.

    Raises:
        InputError: there is no difference, or one is not finite.
    """
    values = finite(differences)[:, None]
    rng = np.random.default_rng(seed)
    low, high = np.percentile(bootstrap_means(values, n_resamples, rng), BOUNDS, axis=0)
    p = sign_flip_p(values, n_resamples, rng)
    return Interval(float(values.mean()), float(low[0]), float(high[0]), float(p[0]))


def score_bounds(differences: Array, *, tried: int = 1) -> tuple[Array, Array]:
    """95% bounds (k,) of the means of paired differences (n, k) of scores in [0, 1], for the best of so many `tried`.

    They are those of skill cards, since a bootstrap has no width where no example differs.
    """
    low, high = paired_interval(differences.mean(axis=0)[:, None], PairedOutcomes.of([differences]), tried=tried)
    return low[:, 0], high[:, 0]


def discoveries(p_values: ArrayLike, *, q: float = 0.05) -> tuple[Array, NDArray[np.bool_]]:
    """Benjamini-Hochberg q-values of a whole family, any shape, and which of them are at most `q`.

    NaN marks a cell that was not measured: it stays NaN, is no discovery and does not widen the family.

    Raises:
        InputError: a p-value lies outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    measured = ~np.isnan(p)
    if np.any((p[measured] < 0) | (p[measured] > 1)):
        raise InputError("p-values must lie in [0, 1]; mark cells without a test by NaN")
    values = np.full(p.shape, np.nan)
    if measured.any():
        values[measured] = stats.false_discovery_control(p[measured], method="bh")
    return values, measured & (np.nan_to_num(values, nan=1.0) <= q)


def compare_with_base(
    outcomes: Mapping[tuple[str | None, str], Outcomes],
    adapters: Sequence[str],
    tasks: Sequence[str],
    *,
    score: Scores = "strict",
    q: float = 0.05,
    n_resamples: int = 2000,
    seed: int = 0,
) -> GainTests:
    """Test every adapter's gain over the base model (key None) on every task.

    Raises:
        InputError: two cells of a task hold different numbers of examples, or a score is not finite.
    """
    pairs = {name: (name, None) for name in adapters}
    return compare(outcomes, pairs, tasks, score=score, q=q, n_resamples=n_resamples, seed=seed)


def compare(
    outcomes: Mapping[tuple[str | None, str], Outcomes],
    pairs: Mapping[str, tuple[str | None, str | None]],
    tasks: Sequence[str],
    *,
    score: Scores = "strict",
    q: float = 0.05,
    n_resamples: int = 2000,
    seed: int = 0,
) -> GainTests:
    """Test the gain of each pair's first member over its second on every task, as one family.

    Rows of the result carry the names of `pairs`. Drawn p-values take at least 2·cells/q flips, so that
    one strong effect alone can pass the correction.

    Raises:
        InputError: two cells of a task hold different numbers of examples, or a score is not finite.
    """
    differences = {
        (row, column): _differences(outcomes, pair, task, score)
        for row, pair in enumerate(pairs.values())
        for column, task in enumerate(tasks)
        if all((member, task) in outcomes for member in pair)
    }
    flips = max(n_resamples, int(np.ceil(2 * len(differences) / q)))
    cells = np.full((4, len(pairs), len(tasks)), np.nan)
    examples = np.zeros(len(tasks), dtype=np.int64)
    for column in range(len(tasks)):
        rows = [row for row, c in differences if c == column]
        if rows:
            values = np.stack([differences[row, column] for row in rows], axis=1)
            examples[column] = len(values)
            rng = np.random.default_rng([seed, column])
            bounds = (
                np.percentile(bootstrap_means(values, n_resamples, rng), BOUNDS, axis=0)
                if score_on(tasks[column], score) == "likelihood"
                else score_bounds(values)
            )
            p = sign_flip_p(values, flips, rng)
            cells[:, rows, column] = np.stack([values.mean(axis=0), *bounds, p])
    return _judged(tuple(pairs), tuple(tasks), cells, examples, q)


def _differences(
    outcomes: Mapping[tuple[str | None, str], Outcomes], pair: tuple[str | None, str | None], task: str, score: Scores
) -> Array:
    first, second = (example_scores(outcomes[member, task], score_on(task, score)) for member in pair)
    try:
        return paired(first, second)
    except InputError as exc:
        names = " and ".join(member or "the base model" for member in pair)
        raise InputError(f"{names} on task {task}: {exc}") from exc


def _judged(
    adapters: tuple[str, ...], tasks: tuple[str, ...], cells: Array, examples: NDArray[np.int64], q: float
) -> GainTests:
    gain, low, high, p = cells
    q_value, called = discoveries(p, q=q)
    verdict = np.select(
        [np.isnan(p), called & (gain > 0), called & (gain < 0)], [NOT_MEASURED, GAIN, SIDE_EFFECT], NOT_SHOWN
    )
    return GainTests(adapters, tasks, gain, low, high, p, q_value, verdict, examples, q)
