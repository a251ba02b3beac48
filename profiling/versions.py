"""Versions of the profile: whether the newest still fits the adapters that joined, what changed, and back to another.

A row that joins is projected onto traits that were fitted without it. That no longer suffices in two cases. Either the
traits leave a larger residual of its gains than they leave of fitted adapters when each is left out in turn, its
examples resampled (the upper end of the 95% band). Or so many adapters joined that the fit rests on a small part of
the fleet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..adapters import AdapterState, FittedTraits, Registry, StoredProfile
from ..router import Router, RoutingProfile
from .matrix.profiled import Profiled
from .traits.space import Scaling, principal_components, task_scale

Array = NDArray[np.float64]
GROWTH = 0.25
"""A fit is due when so large a share of the fitted adapters joined since; chosen, not measured."""
LEAST_JOINED = 3
LEAST_FITTED = 3
"""With fewer adapters none can be left out, so there is no band."""
BAND = 97.5
_DRAWS = 100


@dataclass(frozen=True)
class Drift:
    """The adapters that joined since `fitted` adapters were fitted, by name with their `residuals`.

    A residual is the root mean square over tasks of what the traits do not express of an adapter's gains, in [0, 1];
    `band` is the upper end of what is usual for an adapter that was not fitted.
    """

    fitted: int
    residuals: dict[str, float]
    band: float

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a fit is due; none where it is not."""
        reasons = [
            f"{name}: {100 * rest:.1f} points of its gains are not expressed by the traits, more than the "
            f"{100 * self.band:.1f} that are usual for an adapter they were not fitted to"
            for name, rest in self.residuals.items()
            if rest > self.band
        ]
        if len(self.residuals) >= max(LEAST_JOINED, GROWTH * self.fitted):
            reasons.append(
                f"{len(self.residuals)} adapters joined since {self.fitted} were fitted: "
                f"that is {LEAST_JOINED} or more, and a quarter or more"
            )
        return tuple(reasons)

    @classmethod
    def of(cls, profiled: Profiled) -> Self:
        """Compare the rows that joined the newest profile with those it was fitted to."""
        summary = profiled.summary
        rows = {name: gains for name, gains in zip(summary.adapters, summary.gains, strict=True)}
        residuals = {name: residual(summary.traits, rows[name]) for name in summary.joined}
        fitted = [name for name in profiled.whole if name not in residuals]
        return cls(len(fitted), residuals, _band(profiled, fitted))


def _band(profiled: Profiled, fitted: Sequence[str]) -> float:
    if len(fitted) < LEAST_FITTED:
        return float("inf")
    return usual_residual(profiled.matrix(fitted).example_gains, profiled.summary.traits.scaling)


def residual(traits: FittedTraits, gains: Array) -> float:
    """Root mean square over tasks of what `traits` do not express of `gains` (tasks,)."""
    return float(np.sqrt(np.mean((gains - traits.reconstruct(traits.project(gains))) ** 2)))


def usual_residual(example_gains: Sequence[Array], scaling: Scaling = "raw", *, random_state: int = 0) -> float:
    """The upper end of the band of residuals that left-out adapters have, by resampled examples.

    `example_gains` holds for each task an array (examples, adapters), of three adapters at least.
    """
    rng = np.random.default_rng(random_state)
    means = np.stack([g.mean(axis=0) for g in example_gains], axis=1)
    drawn = np.stack([_resampled(g, rng) for g in example_gains], axis=2)
    residuals = [_left_out(i, means, drawn[:, i], scaling) for i in range(len(means))]
    return float(np.percentile(np.concatenate(residuals), BAND))


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


@dataclass(frozen=True)
class Reference:
    """Requests whose decisions are compared; `kinds` (n,) group them, such as by task."""

    texts: Sequence[str]
    kinds: Sequence[str]

    @classmethod
    def of_tasks(cls, profiled: Profiled) -> Self:
        """The test prompts of the newest profile's tasks."""
        pairs = [(e.routed, t.name) for t in profiled.tasks for e in t.test_examples]
        return cls([text for text, _ in pairs], [kind for _, kind in pairs])


@dataclass(frozen=True)
class Moved:
    """A request that two profiles route differently; None is the base model."""

    place: int
    kind: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class RolledBack:
    """The new version, and the adapters whose rows were left out since their weights were replaced."""

    version: int
    left_out: tuple[str, ...]


def moved(registry: Registry, before: StoredProfile, after: StoredProfile, requests: Reference) -> list[Moved]:
    """Requests that `after` routes differently from `before`, among the adapters that are ready now."""
    ready = frozenset(a.name for a in registry.adapters(AdapterState.READY))
    old, new = (
        Router(RoutingProfile.from_bytes(each.data), version=each.version, routable=ready) for each in (before, after)
    )
    changes = []
    for place, (text, kind) in enumerate(zip(requests.texts, requests.kinds, strict=True)):
        was, now = old.route(text).adapter, new.route(text).adapter
        if was != now:
            changes.append(Moved(place, kind, was, now))
    return changes


def roll_back(registry: Registry, version: int) -> RolledBack:
    """Make a new version equal to `version`, less the rows of adapters whose weights were replaced since.

    Raises:
        RegistryError: there is no such version.
    """
    stored = registry.profile(version)
    data, summary = stored.data, stored.summary
    now = {a.name: a.weights_digest for a in registry.adapters()}
    gone = tuple(name for name in summary.adapters if now.get(name, summary.weights[name]) != summary.weights[name])
    if gone:
        summary = summary.without(gone, {key for key, adapter in registry.cell_keys().items() if adapter in gone})
        routing = RoutingProfile.from_bytes(data)
        data = routing.take([i for i, name in enumerate(routing.adapters) if name not in gone]).to_bytes()
    new = registry.put_profile(data, summary, origin="rollback", parent=version)
    return RolledBack(new, gone)
