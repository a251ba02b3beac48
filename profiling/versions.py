"""Versions of the profile: whether the newest still fits the adapters that joined, what changed, and back to another.

A row that joins is projected onto traits that were fitted without it. That no longer suffices in two cases. Either the
traits leave a larger residual of its gains than they leave of fitted adapters when each is left out in turn, its
examples resampled (the upper end of the 95% band). Or so many adapters joined that the fit rests on a small part of
the fleet.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..adapters import FittedTraits, ProfileSummary, Registry, StoredProfile
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
class KindChange:
    """What a version of the profile changes for the `requests` of a kind, of which so many are routed otherwise.

    `before` and `after` are the mean gains over base that the adapters chosen were measured to have on that kind (a
    profiled task; None where it is none, or they were not measured on it), and `error` is the standard error of their
    difference, as if adapters were measured on different examples.
    """

    kind: str
    requests: int
    changed: int
    before: float | None
    after: float | None
    error: float | None

    @property
    def change(self) -> float | None:
        """How much better the newer version is for this kind."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def loses(self) -> bool:
        """Whether it is worse by more than two standard errors."""
        return self.change is not None and self.change < -2 * (self.error or 0.0)


@dataclass(frozen=True)
class Difference:
    """The requests that two versions route otherwise, and what that changes, the kind that loses most first."""

    moved: Sequence[Moved]
    kinds: Sequence[KindChange]


@dataclass(frozen=True)
class RolledBack:
    """The new version, and the adapters whose rows were left out since their weights were replaced."""

    version: int
    left_out: tuple[str, ...]


def moved(registry: Registry, before: StoredProfile, after: StoredProfile, requests: Reference) -> list[Moved]:
    """Requests that `after` routes differently from `before`, among the adapters that are ready now."""
    return list(difference(registry, before, after, requests).moved)


def difference(registry: Registry, before: StoredProfile, after: StoredProfile, requests: Reference) -> Difference:
    """What `after` changes for requests, among the adapters that are ready now.

    Requests of no profiled task count to the one that `after` finds nearest.
    """
    ready = registry.routable_names()
    old, new = (
        Router(RoutingProfile.from_bytes(each.data), version=each.version, routable=ready) for each in (before, after)
    )
    tasks, moves, choices = set(after.summary.tasks), [], {}
    for place, (text, kind) in enumerate(zip(requests.texts, requests.kinds, strict=True)):
        was, decision = old.route(text).adapter, new.route(text)
        near = [kind, *(task.task for task in decision.nearest_tasks[:1])]
        choices.setdefault(next((k for k in near if k in tasks), kind), []).append((was, decision.adapter))
        if was != decision.adapter:
            moves.append(Moved(place, kind, was, decision.adapter))
    kinds = [_change(after.summary, kind, pairs) for kind, pairs in choices.items()]
    return Difference(moves, sorted(kinds, key=lambda each: (each.change or 0.0, each.kind)))


def _change(summary: ProfileSummary, kind: str, pairs: Sequence[tuple[str | None, str | None]]) -> KindChange:
    """What it changes for a kind that its requests go to the second of each pair, and not to the first."""
    n, changed = len(pairs), sum(was != now for was, now in pairs)
    rows = {name: summary.row(name) for pair in pairs for name in pair if name is not None}
    places = [row for row in rows.values() if row is not None]
    if kind not in summary.tasks or len(places) < len(rows):
        return KindChange(kind, n, changed, None, None, None)
    task = summary.tasks.index(kind)
    gains = {name: float(summary.gains[row, task]) for name, row in rows.items() if row is not None}
    was, now = Counter(pair[0] for pair in pairs), Counter(pair[1] for pair in pairs)
    before, after = (sum(gains.get(name or "", 0.0) * count for name, count in side.items()) / n for side in (was, now))
    errors = [(now[name] - was[name]) / n * _error(summary, row, task) for name, row in rows.items() if row is not None]
    return KindChange(kind, n, changed, before, after, float(np.linalg.norm(errors)))


def _error(summary: ProfileSummary, row: int, task: int) -> float:
    """The standard error of a measured gain; 0 where it is not known."""
    name, examples = summary.adapters[row], int(summary.paired.examples[row, task])
    if name in summary.estimated.adapters:
        return float(summary.estimated.errors[summary.estimated.adapters.index(name), task])
    if examples == 0:
        return 0.0
    variance = float(summary.paired.squares[row, task]) / examples - float(summary.gains[row, task]) ** 2
    return float(np.sqrt(max(variance, 0.0) / examples))


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
