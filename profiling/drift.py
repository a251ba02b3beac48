"""Whether the traits still fit the adapters that joined since they were fitted.

A row that joins is projected onto traits that were found without it. That is no longer enough in two cases: what the traits
cannot express of its gains is more than what they fail to express of fitted adapters when each is left out in turn, its
examples resampled (the upper end of the 95% band); or so many adapters joined that the fit rests on a small part of the fleet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .matrix.new_row import centre, project
from .matrix.profiled import Profiled
from .traits.space import Scaling, principal_components, task_scale

Array = NDArray[np.float64]
GROWTH = 0.25
"""A fit is renewed when so large a share of the fitted adapters joined since: a choice, not a finding."""
LEAST_JOINED = 3
LEAST_FITTED = 3
"""Of fewer adapters none can be left out: there is no band, and nothing lies outside it."""
BAND = 97.5
_DRAWS = 100


@dataclass(frozen=True)
class Drift:
    """What joined since the fit of `fitted` adapters: `residuals` are root mean squares over tasks of gains that the traits
    do not express, in points of [-1, 1], `band` is what is usual for an adapter that was not fitted.
    """

    fitted: int
    residuals: dict[str, float]
    band: float

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why to fit anew; none where nothing speaks for it."""
        found = [
            f"{name}: {100 * rest:.1f} points of its gains are not expressed by the traits, more than the "
            f"{100 * self.band:.1f} that are usual for an adapter they were not fitted to"
            for name, rest in self.residuals.items()
            if rest > self.band
        ]
        if len(self.residuals) >= max(LEAST_JOINED, GROWTH * self.fitted):
            found.append(
                f"{len(self.residuals)} adapters joined since {self.fitted} were fitted: "
                f"that is {LEAST_JOINED} or more, and a quarter or more"
            )
        return tuple(found)

    @classmethod
    def of(cls, profiled: Profiled) -> "Drift":
        """Look at the newest profile."""
        summary = profiled.summary
        joined = [name for name in summary.get("joined", []) if name in summary["adapters"]]
        gains = np.array(summary["scores"]) - np.array(summary["base"])
        rows = {name: gains[summary["adapters"].index(name)] for name in joined}
        fitted = [name for name in profiled.whole if name not in joined]
        residuals = {name: unexpressed(summary, row) for name, row in rows.items()}
        return cls(len(fitted), residuals, _band(profiled, fitted))


def _band(profiled: Profiled, fitted: Sequence[str]) -> float:
    if len(fitted) < LEAST_FITTED:
        return float("inf")
    base = [profiled.outcomes(None, task).strict.astype(np.float64) for task in profiled.tasks]
    examples = [
        np.stack([profiled.outcomes(a, task).strict - b for a in fitted], axis=1)
        for task, b in zip(profiled.tasks, base, strict=True)
    ]
    return usual_residual(examples, profiled.summary["scaling"])


def unexpressed(summary: Mapping[str, Any], gains: Array) -> float:
    """Root mean square over tasks of what the traits of `summary` cannot express of `gains` (tasks,)."""
    means, scales = centre(summary)
    expressed = project(summary, gains) @ np.array(summary["loadings"]) * scales + means
    return float(np.sqrt(np.mean((gains - expressed) ** 2)))


def usual_residual(example_gains: Sequence[Array], scaling: Scaling = "raw", *, random_state: int = 0) -> float:
    """The upper end of the band of residuals that left-out adapters have, by resampled examples.

    `example_gains` holds for each task an array (examples, adapters), of three adapters at least.
    """
    rng = np.random.default_rng(random_state)
    means = np.stack([g.mean(axis=0) for g in example_gains], axis=1)
    drawn = np.stack([_resampled(g, rng) for g in example_gains], axis=2)
    found = [_left_out(i, means, drawn[:, i], scaling) for i in range(len(means))]
    return float(np.percentile(np.concatenate(found), BAND))


def _left_out(i: int, means: Array, drawn: Array, scaling: Scaling) -> Array:
    """Residuals (draws,) of adapter i's resampled rows (draws, tasks) in the components of the others."""
    others = np.delete(means, i, axis=0)
    scale = task_scale(others, scaling)
    components = principal_components(others / scale)[1]
    centred = (drawn - others.mean(axis=0)) / scale
    rest = centred - centred @ components.T @ components
    return np.sqrt(np.mean((rest * scale) ** 2, axis=1))


def _resampled(gains: Array, rng: np.random.Generator) -> Array:
    """Means (draws, adapters) of examples drawn with replacement."""
    n = len(gains)
    return rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS) @ gains / n
