"""Confidence sequences: intervals for a mean that hold at every look, and not only at one that was planned.

An interval of the usual kind errs in 5% of *looks*. Whoever looks every hour, and stops when the figure pleases, errs
far more often than that (docs/lift.md has the figures). A 95% confidence sequence errs in 5% of *histories*: the
probability that it misses the truth at any look, ever, is 5%.

The one used here is the empirical Bernstein bound of Howard, Ramdas, McAuliffe and Sekhon (Annals of Statistics 49,
2021, theorem 4), mixed over its parameter. Values x come one after the other. Before each is seen there is a prediction
p of it, and a `below`, how far it may fall below its prediction at most. Let `reach` be no less than any `below`. The
process

    exp(sum of  b (x - its expectation given the past) / reach - cost(b, x - p, below)),

    cost(b, d, below) = (d / below)² (-log(1 - b below / reach) - b below / reach),

has an expectation of at most 1 at every time for each bet b in (0, 1), and so does any mixture over bets. Such a mean
wealth exceeds 1 / alpha with probability alpha at most, ever (Ville's inequality), which bounds the sum from above, and
with it the mean of the expectations from below; the other side likewise. Nothing else is assumed: values may be skewed,
and their expectation may drift; what is bounded is then the mean of the expectations so far. `confseq`, the library of
these authors, has had no release since January 2023, does not build on Python 3.12, and needs Boost; this is what would
be used of it.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

BETS = np.geomspace(1e-4, 0.95, 48)
"""Each is best for a certain number of values; together they lose little for any number from some ten to 10⁹."""
_LIKELY = 0.3
"""The bet that has the most weight: about that of a hundred conversations of the control group."""
_LOG_WEIGHTS = -np.log1p((np.log(BETS / _LIKELY) / 0.8) ** 2)
_LOG_WEIGHTS -= np.logaddexp.reduce(_LOG_WEIGHTS)
_STEPS = 10
_AT_ONCE = 2_000


@dataclass(frozen=True)
class Interval:
    """An estimate and its bounds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Values:
    """n values and their predictions (n,), and how far each may lie `below` and `above` its own at most (n,).

    What is said of a value before it is seen, all but the value itself, must not depend on it. `reach` is no less than
    any `below` or `above`, whatever may come.
    """

    values: Array
    predictions: Array
    below: Array
    above: Array
    reach: float

    def __getitem__(self, rows: Any) -> Self:
        parts = (self.values[rows], self.predictions[rows], self.below[rows], self.above[rows])
        return type(self)(*parts, self.reach)

    def sums(self, looks: ArrayLike | None = None) -> "Sums":
        """The sums of all values or, with `looks` (l,), of the first so many at each."""
        ends = np.atleast_1d(len(self.values) if looks is None else looks)
        totals = np.r_[0.0, self.values.cumsum()][ends]
        low, high = self._costs(self.below, ends), self._costs(self.above, ends)
        if looks is None:
            ends, totals, low, high = ends[0], totals[0], low[0], high[0]
        return Sums(np.asarray(ends, np.float64), np.asarray(totals), low, high, self.reach)

    def _costs(self, most: Array, ends: NDArray[np.intp]) -> Array:
        """What the first values cost each bet at each end, (ends, bets)."""
        # What cannot deviate costs nothing.
        places = np.flatnonzero(most > 0)
        shares = most[places] / self.reach
        squares = ((self.values - self.predictions)[places] / most[places]) ** 2
        ends = np.searchsorted(places, ends)
        costs, so_far = np.zeros((len(ends), len(BETS))), np.zeros(len(BETS))
        # A part at a time, since a value has a row of bets.
        for start in range(0, len(places), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            bets = shares[part, None] * BETS
            grown = so_far + (squares[part, None] * (-np.log1p(-bets) - bets)).cumsum(axis=0)
            inside = (ends > start) & (ends <= start + _AT_ONCE)
            costs[inside] = grown[ends[inside] - start - 1]
            so_far = grown[-1]
        return costs


@dataclass(frozen=True)
class Sums:
    """What a confidence sequence needs of the values so far, at one look or at each of several (looks,).

    `count` values have the sum `total`; `low_costs` and `high_costs` (..., bets) are what they cost the bets that the
    mean lies above, and below, what is claimed.
    """

    count: Array
    total: Array
    low_costs: Array
    high_costs: Array
    reach: float

    def __getitem__(self, looks: Any) -> Self:
        parts = (self.count[looks], self.total[looks], self.low_costs[looks], self.high_costs[looks])
        return type(self)(*parts, self.reach)

    def scaled(self, factor: float) -> Self:
        """What the sums would be after so many times as many values."""
        count, total = self.count * factor, self.total * factor
        return type(self)(count, total, self.low_costs * factor, self.high_costs * factor, self.reach)

    @property
    def mean(self) -> Array:
        """The mean of the values."""
        return self.total / self.count

    def low(self, alpha: float) -> Array:
        """The mean of expectations lies above this at every look, but for probability `alpha`."""
        return self.mean - self.reach * _solved(self.low_costs, np.log(1 / alpha)) / self.count

    def high(self, alpha: float) -> Array:
        """The mean of expectations lies below this at every look, but for probability `alpha`."""
        return self.mean + self.reach * _solved(self.high_costs, np.log(1 / alpha)) / self.count

    def interval(self, alpha: float, *, least: float = -1.0, most: float = 1.0) -> Interval:
        """The interval that misses with probability `alpha` in all, within what is possible; of one look."""
        low, high = np.clip([self.low(alpha / 2), self.high(alpha / 2)], least, most)
        return Interval(float(self.mean), float(low), float(high))

    def misses(self, mean: ArrayLike, alpha: float) -> NDArray[np.bool_]:
        """Whether the interval leaves `mean` out at each look; faster than finding its ends."""
        surplus = (self.total - self.count * np.asarray(mean)) / self.reach
        most = np.log(2 / alpha)
        return (_log_wealth(surplus, self.low_costs) >= most) | (_log_wealth(-surplus, self.high_costs) >= most)


def _log_wealth(surplus: Array, costs: Array) -> Array:
    """The logarithm of the mean wealth of all bets, of a surplus in units of the reach."""
    exponents = np.multiply.outer(surplus, BETS) - costs + _LOG_WEIGHTS
    most = exponents.max(axis=-1)
    # `logaddexp.reduce` says the same, in three times the time.
    return most + np.log(np.exp(exponents - most[..., None]).sum(axis=-1))


def _solved(costs: Array, target: float) -> Array:
    """The surplus at which the logarithm of the mean wealth is `target`, in units of the reach.

    Newton's method on a convex function, from where one bet alone would reach the target, so from above.
    """
    surplus = ((target - _LOG_WEIGHTS + costs) / BETS).min(axis=-1)
    for _ in range(_STEPS):
        wealth = _log_wealth(surplus, costs)
        shares = np.exp(np.multiply.outer(surplus, BETS) - costs + _LOG_WEIGHTS - wealth[..., None])
        slope = shares @ BETS
        surplus = surplus - (wealth - target) / slope
    return surplus
