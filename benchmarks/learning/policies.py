"""Ways of learning whom to choose from the outcomes of some requests: each evening anew, for the next day."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from traitroute.serving.skills.recalibration import Rewarded, learn

from .per_adapter import corrections
from .world import World

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Reports:
    """m outcomes reported: the request, the column that answered, with which propensity, the reward, and by which key,
    (m,) each."""

    asked: Rows
    chosen: Rows
    propensity: Array
    rewards: Array
    keys: Rows

    def join(self, others: list[Self]) -> Self:
        """These and others."""
        return type(self)(*(np.concatenate([getattr(r, f.name) for r in [self, *others]]) for f in fields(self)))


class Policy(Protocol):
    """A way of learning in a world."""

    holdback: float
    """The share that base answers, to compare with."""

    def columns(self) -> Rows:
        """The column chosen now for each request of the world, (n,)."""
        ...

    def learn(self, reports: Reports) -> None:
        """Take the outcomes of the last days into account; those of the last are new."""
        ...


@dataclass
class Unlearning:
    """The profile as it was measured."""

    world: World
    holdback: float = 0.0

    def columns(self) -> Rows:
        return self.world.chosen(self.gains)

    @cached_property
    def gains(self) -> Array:
        return self.world.gains

    def learn(self, reports: Reports) -> None:
        """Nothing."""

    def rewarded(self, reports: Reports) -> list[Rewarded]:
        """The outcomes as the product reads them."""
        world, (rows, columns) = self.world, (reports.asked, reports.chosen)
        gains = np.where(columns > 0, world.gains[rows, np.maximum(columns - 1, 0)], 0.0)
        names = np.array([None, *world.adapters], object)[columns]
        columns_of = (names, world.level[rows] + gains, reports.rewards, reports.keys, world.kind[rows])
        return [
            Rewarded(name, float(expected), float(reward), str(key), kind, float(propensity))
            for name, expected, reward, key, kind, propensity in zip(*columns_of, reports.propensity, strict=True)
        ]


@dataclass
class PerAdapter(Unlearning):
    """One correction for each adapter."""

    holdback: float = 0.05

    def learn(self, reports: Reports) -> None:
        learnt = corrections(self.rewarded(reports))
        self.gains = self.world.gains + np.array([learnt.get(name, 0.0) for name in self.world.adapters])


@dataclass
class Contextual(Unlearning):
    """What `traitroute recalibrate --apply` does."""

    holdback: float = 0.05

    def learn(self, reports: Reports) -> None:
        self.learnt = learn(self.rewarded(reports), self.world.profile).corrections
        self.gains = self.world.corrected(self.learnt)


@dataclass
class LinUCB:
    """A linear bandit that knows no profile (Li et al., 2010, algorithm 1), on components of requests' features."""

    world: World
    holdback: float = 0.0
    components: int = 24
    width: float = 0.5

    def __post_init__(self) -> None:
        rows = np.array([m.meaning for m in self.world.marks], np.float64)
        centred = rows - rows.mean(axis=0)
        left, scales, _ = np.linalg.svd(centred, full_matrices=False)
        scores = left[:, : self.components] * scales[: self.components]
        self.features = np.column_stack([np.ones(len(rows)), scores / scores.std()])
        arms, size = 1 + len(self.world.adapters), self.features.shape[1]
        self.gram = np.tile(np.eye(size), (arms, 1, 1))
        self.moment = np.zeros((arms, size))

    def columns(self) -> Rows:
        inverse = np.linalg.inv(self.gram)
        theta = np.einsum("aij,aj->ai", inverse, self.moment)
        spread = np.sqrt(np.einsum("ni,aij,nj->na", self.features, inverse, self.features))
        return (self.features @ theta.T + self.width * spread).argmax(axis=1)

    def learn(self, reports: Reports) -> None:
        self.gram[:], self.moment[:] = np.eye(self.features.shape[1]), 0.0
        for arm in range(len(self.gram)):
            rows = self.features[reports.asked[reports.chosen == arm]]
            self.gram[arm] += rows.T @ rows
            self.moment[arm] += rows.T @ reports.rewards[reports.chosen == arm]


POLICIES: dict[str, Callable[[World], Policy]] = {
    "no learning": Unlearning,
    "per adapter": PerAdapter,
    "by kind": Contextual,
    "LinUCB": LinUCB,
}
