"""Paired times: what one way of asking costs beside another, with bootstrap intervals; and whether a series is flat."""

from dataclasses import dataclass

import numpy as np
from interval import Interval
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
RESAMPLES = 5_000


@dataclass(frozen=True)
class Difference:
    """What `times` take more than `beside`: median and mean of pairs in ms, the median in % of `beside`'s median."""

    median_ms: Interval
    mean_ms: Interval
    percent: Interval

    @classmethod
    def of(cls, times: Array, beside: Array, rng: np.random.Generator) -> "Difference":
        """Compare ms, both (pairs,); pairs are resampled whole.

        The median is the figure to read: one pause of the machine moves a mean of hundreds.
        """
        drawn = rng.integers(len(times), size=(RESAMPLES, len(times)))
        more = times - beside
        medians = np.median(more[drawn], axis=1)
        shares = 100 * medians / np.median(beside[drawn], axis=1)
        median = float(np.median(more))
        return cls(
            median_ms=Interval.of(median, medians),
            mean_ms=Interval.of(float(more.mean()), more[drawn].mean(axis=1)),
            percent=Interval.of(100 * median / float(np.median(beside)), shares),
        )


@dataclass(frozen=True)
class Growth:
    """A series of memory sizes: MB in the middle and at the end, and the slope between in MB a minute."""

    middle_mb: float
    end_mb: float
    mb_a_minute: float

    def __str__(self) -> str:
        return f"{self.middle_mb:.0f} → {self.end_mb:.0f} MB, {self.mb_a_minute:+.1f} MB a minute"

    @classmethod
    def of(cls, seconds: Array, mb: Array) -> "Growth":
        """Look at the second half, both (samples,): caches fill in the first."""
        late = seconds >= (seconds[0] + seconds[-1]) / 2
        slope = float(np.polyfit(seconds[late], mb[late], 1)[0]) if late.sum() > 1 else 0.0
        return cls(float(mb[late][0]), float(mb[-1]), 60 * slope)


def over_rounds(values: ArrayLike) -> Interval:
    """The mean of what some rounds gave, (rounds,), with Student's interval."""
    given = np.asarray(values, dtype=np.float64)
    half = float(stats.t.ppf(0.975, len(given) - 1) * stats.sem(given))
    mean = float(given.mean())
    return Interval(mean, mean - half, mean + half)


def percent_more(rates: Array, beside: Array, rng: np.random.Generator) -> Interval:
    """By how many % `rates` are above `beside`, both (pairs,): the geometric mean of the pairs' ratios.

    A mean, for whole runs are few and each has its own pauses in it.
    """
    drawn = rng.integers(len(rates), size=(RESAMPLES, len(rates)))
    more = np.log(rates / beside)
    value, resampled = float(more.mean()), more[drawn].mean(axis=1)
    return Interval.of(100 * float(np.expm1(value)), 100 * np.expm1(resampled))
