"""A figure with the 95% interval of a bootstrap."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its interval; it is formatted as a number is: `f"{interval:+.2f}"`."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: NDArray[np.float64]) -> Self:
        """The interval of a figure that was found again in each of the samples drawn, (draws,)."""
        low, high = np.quantile(resampled, [0.025, 0.975])
        return cls(float(value), float(low), float(high))

    def __format__(self, spec: str) -> str:
        value, low, high = (format(each, spec) for each in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"
