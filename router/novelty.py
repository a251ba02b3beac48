"""How likely a request is of a kind that was never profiled, read off the words at its ends that are new."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]
LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Novelty:
    """Unseen mass as measured where the features were not fitted: its mean on requests of profiled tasks (`known`) and
    of tasks left out (`new`), and the spread within both.
    """

    known: float
    new: float
    spread: float

    @classmethod
    def of(cls, known: Array, new: Array) -> Self:
        """Read off held-out requests, unseen masses (n,) and (m,)."""
        spread = float(np.hypot(known.std(), new.std()) / np.sqrt(2))
        return cls(float(known.mean()), float(new.mean()), max(spread, LEAST_SPREAD))

    def share(self, unseen: Array) -> Array:
        """The probability that requests of unseen mass (n,) are of a new kind, both kinds being equally frequent (n,).

        A linear discriminant: both kinds are taken as normal, of one spread.
        """
        slope = max(self.new - self.known, 0.0) / self.spread**2
        return expit(slope * (unseen - (self.known + self.new) / 2))
