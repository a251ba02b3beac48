"""What feedback corrects of the gains predicted of adapters: in general, by kind of request, and of what is new.

A correction is the posterior mean of a Gaussian process over kinds (`kinds.py`), so that what turned out on one kind
carries over to those that are near, as far as they are like it, and to no others. `serving/skills/recalibration.py`
learns it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .decision import NOVEL

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Corrections:
    """Corrections of `a` adapters on `k` kinds, in score points, none of which exceeds `bound` (1,).

    `general` (a,) holds for all requests; `near` (a, k) is laid on how like a request is to each kind; `novel` (a,) is
    added for requests that are like nothing profiled. These are of many kinds in truth, and what is a gain on one may
    be a loss on the next: their gains are lowered, and never raised.
    """

    general: Array
    near: Array
    novel: Array
    bound: Array

    @classmethod
    def none(cls, adapters: int, kinds: int, bound: float) -> Self:
        """Corrections of nothing."""
        return cls(np.zeros(adapters), np.zeros((adapters, kinds)), np.zeros(adapters), np.array([bound]))

    def of(self, likeness: Array) -> Array:
        """The corrections (..., a) of requests that are so like (..., k) each kind."""
        novel = likeness.max(axis=-1, keepdims=True) <= 1 - NOVEL
        most = np.where(novel, 0.0, self.bound)
        return np.clip(self.general + likeness @ self.near.T + novel * self.novel, -self.bound, most)

    @property
    def anywhere(self) -> NDArray[np.bool_]:
        """Which adapters are corrected at all, (a,)."""
        return (self.general != 0) | self.near.any(axis=1) | (self.novel != 0)

    def take(self, places: Sequence[int]) -> Self:
        """Those of some of the adapters, in that order."""
        kept = list(places)
        return type(self)(self.general[kept], self.near[kept], self.novel[kept], self.bound)

    def with_adapter(self) -> Self:
        """These, and none of one more adapter."""
        near = np.vstack([self.near, np.zeros_like(self.near[:1])])
        return type(self)(np.append(self.general, 0.0), near, np.append(self.novel, 0.0), self.bound)
