"""Length habits: how long answers are, and whether an adapter's lie between base and source.

Lengths are tokens without the end-of-sequence token, as `Outcomes.output_tokens` and `target_tokens`
count them. Outputs stop at a task's token limit, so `limit` clips every sample alike; with many outputs
cut, a habit speaks of clipped lengths only, which is why the shares cut are reported beside it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ...adapters import InputError

Array = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Points at which quantile functions are compared; distances are exact where n divides this.
_POINTS = 1000
_U = (np.arange(_POINTS) + 0.5) / _POINTS
# Resampled lengths held at once.
_CHUNK = 500_000


@dataclass(frozen=True)
class LengthSummary:
    """Lengths in tokens; `quantiles` belong to `QUANTILES`, `cut` is the share at or above the limit."""

    count: int
    mean: float
    sd: float
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]
    cut: float


@dataclass(frozen=True)
class LengthHabit:
    """Where an adapter's output lengths lie between the base model's (weight 0) and its source's (1).

    `weight` fits the adapter's quantile function by `(1 - weight)·base + weight·source` in Wasserstein
    distance, `low` and `high` are its 95% bootstrap bounds; NaN where base and source are alike.
    Distances are in tokens. `p` is the chance of a distance to the best interpolation at least as large
    if the adapter did interpolate. `cut_*` are the shares of lengths at or above the limit.

    `verdict` is "neither" where p < 0.05; else "source" or "base" where the interval holds 1 or 0 alone,
    "between" where it holds neither, "undecided" where it holds both or where base and source lengths
    cannot be told apart (Kolmogorov-Smirnov, 5%). With many examples small departures are significant
    too: read "neither" beside `unexplained`.
    """

    weight: float
    low: float
    high: float
    to_base: float
    to_source: float
    to_best: float
    base_to_source: float
    p: float
    verdict: str
    cut_base: float
    cut_source: float
    cut_adapter: float

    @property
    def unexplained(self) -> float:
        """Distance to the best interpolation as a share of that from base to source."""
        return self.to_best / self.base_to_source if self.base_to_source else np.nan


def summarise(lengths: ArrayLike, *, limit: int | None = None) -> LengthSummary:
    """Describe `lengths` (n,), clipped at `limit`.

    Raises:
        InputError: there are no lengths, or one is negative or not finite.
    """
    kept = _clipped(lengths, limit)
    return LengthSummary(
        count=len(kept),
        mean=float(kept.mean()),
        sd=float(kept.std()),
        minimum=float(kept.min()),
        maximum=float(kept.max()),
        quantiles=tuple(map(float, np.quantile(kept, QUANTILES))),
        cut=_share_cut(kept, limit),
    )


def length_grid(*samples: ArrayLike, points: int = 200) -> Array:
    """Lengths (points,), even on the log1p scale, from 0 to a little beyond the longest of `samples`."""
    longest = max(float(_clipped(sample, None).max()) for sample in samples)
    return np.expm1(np.linspace(0, 1.05 * np.log1p(max(longest, 1)), points))


def density(lengths: ArrayLike, grid: ArrayLike) -> Array:
    """Kernel density of log1p(lengths) at `grid` (points,), per unit of log1p: for a logarithmic axis.

    Kernels (Scott's rule) are at least as wide as the grid's median step, so that a sample of one
    repeated length is a spike that the grid cannot miss.

    Raises:
        InputError: there are no lengths, or one is negative or not finite.
    """
    sample, at = np.log1p(_clipped(lengths, None)), np.log1p(np.asarray(grid, dtype=float))
    step = float(np.median(np.diff(at)))
    # Rounding gives equal values a spread near 1e-16.
    sd = float(sample.std(ddof=1)) if np.ptp(sample) > 0 else 0.0
    if sd * len(sample) ** -0.2 <= step * 1e-3:
        return stats.norm.pdf(at, loc=sample.mean(), scale=step)
    return stats.gaussian_kde(sample, bw_method=max(len(sample) ** -0.2, step / sd))(at)


def wasserstein(a: ArrayLike, b: ArrayLike, *, limit: int | None = None) -> float:
    """Wasserstein-1 distance in tokens between two samples of lengths, both clipped at `limit`.

    Raises:
        InputError: there are no lengths, or one is negative or not finite.
    """
    return float(stats.wasserstein_distance(_clipped(a, limit), _clipped(b, limit)))


def habit(
    base_lengths: ArrayLike,
    source_lengths: ArrayLike,
    adapter_lengths: ArrayLike,
    *,
    limit: int | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> LengthHabit:
    """Test the paper's claim that output lengths interpolate between base model and source data.

    The three samples are resampled apart, though base and adapter answer the same prompts: what they
    share makes the bounds wider than need be, never narrower. For `p`, adapters that do interpolate are
    drawn from the best interpolation and fitted again between redrawn base and source lengths.

    Raises:
        InputError: there are no lengths, or one is negative or not finite.
    """
    samples = [_clipped(x, limit) for x in (base_lengths, source_lengths, adapter_lengths)]
    base, source, adapter = map(_quantiles, samples)
    weight = _weights(base, source, adapter)
    best = _interpolated(base, source, weight)
    distance = _distances(adapter, best)
    whole = all(np.array_equal(x, np.rint(x)) for x in samples)
    drawn, null = _resampled(samples, best, whole, n_resamples, np.random.default_rng(seed))
    p = float((np.sum(null >= distance - 1e-9) + 1) / (n_resamples + 1))
    weights = drawn[~np.isnan(drawn)]
    bounds = np.percentile(weights, (2.5, 97.5)) if weights.size and not np.isnan(weight) else [np.nan] * 2
    alike = bool(stats.ks_2samp(samples[0], samples[1], method="asymp").pvalue >= 0.05)
    cut_base, cut_source, cut_adapter = (_share_cut(x, limit) for x in samples)
    return LengthHabit(
        weight=float(weight),
        low=float(bounds[0]),
        high=float(bounds[1]),
        to_base=float(_distances(adapter, base)),
        to_source=float(_distances(adapter, source)),
        to_best=float(distance),
        base_to_source=float(_distances(base, source)),
        p=p,
        verdict=_verdict(p, float(bounds[0]), float(bounds[1]), alike),
        cut_base=cut_base,
        cut_source=cut_source,
        cut_adapter=cut_adapter,
    )


def _resampled(
    samples: list[Array], best: Array, whole: bool, n_resamples: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Weights of resampled adapters, and distances of adapters drawn from `best`, both (n_resamples,)."""
    weights, distances = [], []
    size = max(1, _CHUNK // max(map(len, [*samples, _U])))
    for start in range(0, n_resamples, size):
        shape = min(size, n_resamples - start)
        base, source, adapter = (_quantiles(rng.choice(x, (shape, len(x)))) for x in samples)
        weights.append(_weights(base, source, adapter))
        interpolated = rng.choice(best, (shape, len(samples[2])))
        # Real outputs have whole tokens, so an adapter that interpolates must be rounded as well.
        interpolated = _quantiles(np.rint(interpolated) if whole else interpolated)
        fitted = _weights(base, source, interpolated)
        distances.append(_distances(interpolated, _interpolated(base, source, fitted)))
    return np.concatenate(weights), np.concatenate(distances)


def _quantiles(samples: Array) -> Array:
    """Inverse distribution functions at `_U` of samples (..., n), shape (..., points)."""
    n = samples.shape[-1]
    return np.sort(samples, axis=-1)[..., np.ceil(_U * n).astype(int) - 1]


def _weights(base: Array, source: Array, adapter: Array) -> Array:
    """Weights in [0, 1] of least Wasserstein distance, NaN where base and source are alike.

    The distance is convex in the weight, the mean of |slope|·|ratio - weight|: its least is at the
    median of the ratios weighted by |slope|, or at the end of [0, 1] next to it.
    """
    slope = source - base
    ratio = np.divide(adapter - base, slope, out=np.zeros_like(slope), where=slope != 0)
    order = np.argsort(ratio, axis=-1)
    mass = np.cumsum(np.take_along_axis(np.abs(slope), order, axis=-1), axis=-1)
    middle = np.argmax(mass >= mass[..., -1:] / 2, axis=-1)[..., None]
    weights = np.take_along_axis(np.take_along_axis(ratio, order, axis=-1), middle, axis=-1)[..., 0]
    return np.where(mass[..., -1] > 0, np.clip(weights, 0, 1), np.nan)


def _interpolated(base: Array, source: Array, weights: Array) -> Array:
    return base + np.nan_to_num(weights)[..., None] * (source - base)


def _distances(first: Array, second: Array) -> Array:
    return np.mean(np.abs(first - second), axis=-1)


def _verdict(p: float, low: float, high: float, alike: bool) -> str:
    if p < 0.05:
        return "neither"
    if alike or np.isnan(low) or (low <= 0 and high >= 1):
        return "undecided"
    if low <= 0:
        return "base"
    return "source" if high >= 1 else "between"


def _share_cut(lengths: Array, limit: int | None) -> float:
    return 0.0 if limit is None else float(np.mean(lengths >= limit))


def _clipped(lengths: ArrayLike, limit: int | None) -> Array:
    array = np.asarray(lengths, dtype=float)
    if array.ndim != 1 or not array.size or not np.all(np.isfinite(array) & (array >= 0)):
        raise InputError(
            f"got lengths of shape {array.shape}; give one number of tokens an example, 0 or more, "
            "and at least one example"
        )
    return array if limit is None else np.minimum(array, limit)
