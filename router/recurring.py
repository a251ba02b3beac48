"""Kinds of request that recur in the traffic and that a judge compared adapters on, since no task is like them.

A request is of such a kind where it is more like it than like any profiled kind, and at least `ALIKE`. What the judging
says of the mean gain of an adapter there, beyond what was predicted, is then added to what is predicted of the request:
how requests of the kind differ from each other is still for the profile to say. `profiling/recurring.py` finds it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .decision import NOVEL
from .kinds import Kinds, unit

Array = NDArray[np.float64]
ALIKE = 1 - NOVEL


@dataclass(frozen=True)
class RecurringKinds:
    """`m` kinds: unit means of their `requests` (m,), in `words` (m, ends) and `meaning` (m, meaning).

    `beyond` (m, adapters) are the mean gains believed less those predicted, 0 of adapters that were not judged, and
    `errors` (m,) their standard errors.
    `identities` (m,) are the kinds' names, of eight hexadecimal digits, as numbers.
    """

    words: NDArray[np.float32]
    meaning: NDArray[np.float32]
    requests: NDArray[np.int64]
    beyond: Array
    errors: Array
    identities: NDArray[np.int64]

    @classmethod
    def one(cls, name: str, ends: Array, meaning: Array, beyond: Array, error: float) -> Self:
        """A kind by the features (n, ends), (n, meaning) of its requests."""
        words, means = (unit(unit(part).mean(axis=0, keepdims=True)).astype(np.float32) for part in (ends, meaning))
        count, identity = np.array([len(ends)]), np.array([int(name, 16)])
        return cls(words, means, count, beyond[None].astype(np.float64), np.array([error]), identity)

    @property
    def names(self) -> tuple[str, ...]:
        """What the kinds are called."""
        return tuple(f"{identity:08x}" for identity in self.identities.tolist())

    def of(self, kinds: Kinds, likeness: Array, ends: Array, meaning: Array) -> NDArray[np.intp]:
        """The place of the kind that each request is of (...), -1 for none; `likeness` (..., k) is to profiled
        kinds."""
        like = kinds.likeness_to(self.words, self.meaning, ends, meaning)
        least = np.maximum(likeness.max(axis=-1, initial=0.0), ALIKE)
        return np.where(like.max(axis=-1) > least, like.argmax(axis=-1), -1)

    def join(self, other: Self) -> Self:
        """These and others."""
        names = self.__dataclass_fields__
        return type(self)(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))

    def without(self, place: int) -> Self | None:
        """The others; None where there are none."""
        if len(self.errors) == 1:
            return None
        return type(self)(*(np.delete(getattr(self, name), place, axis=0) for name in self.__dataclass_fields__))

    def take(self, adapters: Sequence[int]) -> Self:
        """The same of some of the adapters, in that order."""
        return replace(self, beyond=self.beyond[:, list(adapters)])

    def with_adapter(self) -> Self:
        """The same, with one more adapter that was not judged."""
        return replace(self, beyond=np.hstack([self.beyond, np.zeros((len(self.beyond), 1))]))
