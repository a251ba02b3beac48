"""A fitted routing profile: everything needed to predict gains, as plain arrays.

Stored as one safetensors blob whose metadata holds a JSON header (format 4):

    header    format, adapters, tasks, n_traits, alpha, error_known, error_new, novelty, z_new, z_known, risk,
    fitted_on,
              and corrections where there are any
    tensors   trait_scores (adapters, r), residuals (adapters, tasks), evidence_weights (adapters, kinds),
              centroids (tasks, p), words (tasks, N_HASHES), features.*, demand.*, training.*
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..adapters import RegistryError
from .decision import Change
from .features import RequestFeatures
from .guard import Novelty
from .request import Request, tokens_of
from .training_profiles import KINDS, TrainingProfiles, TrainingRows, evidence_gains

Array = NDArray[np.float64]
FORMAT = 4
_PARTS = {"features": RequestFeatures, "training": TrainingProfiles}
_HEADER = ("n_traits", "error_known", "error_new", "z_new", "z_known", "risk", "fitted_on")
_ARRAYS = ("trait_scores", "residuals", "evidence_weights", "centroids", "words")


@dataclass(frozen=True)
class Demand:
    """Linear map from features (p,) to mean gain, demand for each component and share of each task, (1 + r + tasks,).

    `coef` (p, 1 + r + tasks) and `intercept` were fitted by ridge regression with penalty `alpha`.
    """

    coef: Array
    intercept: Array
    alpha: float

    def of(self, features: Array) -> Array:
        """The demand of requests, (..., 1 + r + tasks), by their features (..., p)."""
        return features @ self.coef + self.intercept


@dataclass(frozen=True)
class RoutingProfile:
    """What adapters supply (`trait_scores`) and how to read what a request demands.

    `trait_scores` has shape (adapters, r); the first `n_traits` columns are traits above the null, the rest are
    components kept because they predict held-out gains. `residuals` (adapters, tasks) are measured gains, less those
    predicted, of adapters that joined after the fit. `evidence_weights` (adapters, kinds) say what evidence of
    `training` is worth.

    `centroids` (tasks, p) are mean features of each task, `words` (tasks, N_HASHES) the share of its requests that have
    each word. `error_known` and `error_new` are root-mean-square errors of predicted task gains, on held-out requests
    of profiled tasks and on tasks left out of the fit. A predicted gain must exceed zero by `z_new` standard errors
    where a request is new, chosen so that at most a share `risk` of data sets is harmed, and by `z_known` where it is
    not. `corrections`, learnt from feedback, are added to the gains predicted of some adapters, by name.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    trait_scores: Array
    residuals: NDArray[np.float32]
    n_traits: int
    features: RequestFeatures
    demand: Demand
    training: TrainingProfiles
    evidence_weights: Array
    centroids: Array
    words: NDArray[np.float32]
    novelty: Novelty
    error_known: float
    error_new: float
    z_new: float
    z_known: float
    risk: float
    fitted_on: int
    corrections: Mapping[str, float] = field(default_factory=dict)

    def predict(self, request: Request) -> "Prediction":
        """Predict the gain of every adapter over the base model on one request."""
        tokens = tokens_of(request)
        features = self.features.row(tokens)
        new = self.novelty.probability(self.features.unseen_mass(features))
        # What profiled requests have taught holds for requests like them; of others only evidence speaks.
        demand, r = self.demand.of(features) * (1 - float(new)), self.trait_scores.shape[1]
        demand, shares = demand[: 1 + r], demand[1 + r :]
        joined, rows = self._joined
        residuals = np.zeros(len(self.adapters))
        residuals[joined] = rows @ shares.astype(np.float32)
        evidence = self.training.row(features, tokens)
        gains = demand[0] + self.trait_scores @ demand[1:] + residuals
        gains = gains + evidence_gains(evidence, self.evidence_weights) + self._corrections
        cosines = self._directions @ features / max(float(np.linalg.norm(features)), 1e-12)
        return Prediction(self, gains, float(self.margin(new)), float(new), demand, residuals, evidence, cosines)

    def error(self, new: Array) -> Array:
        """Standard errors (n,) of gains predicted for requests that are of a new kind with probability `new` (n,).

        The squared error is the one on profiled tasks or the one on tasks left out, by how likely either kind is.
        """
        return np.sqrt((1 - new) * self.error_known**2 + new * self.error_new**2)

    def margin(self, new: Array) -> Array:
        """Margins of error (n,) of predicted gains, z standard errors; `new` as in `error`."""
        return ((1 - new) * self.z_known + new * self.z_new) * self.error(new)

    @cached_property
    def components(self) -> list[str]:
        """Names of the columns of `trait_scores`."""
        r = self.trait_scores.shape[1]
        return [f"trait {i + 1}" if i < self.n_traits else f"component {i + 1}" for i in range(r)]

    @cached_property
    def _joined(self) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The adapters that have residuals, and these."""
        joined = np.flatnonzero(self.residuals.any(axis=1))
        return joined, np.ascontiguousarray(self.residuals[joined])

    @cached_property
    def _corrections(self) -> Array:
        return np.array([self.corrections.get(name, 0.0) for name in self.adapters])

    @cached_property
    def _directions(self) -> Array:
        """Unit vectors of the tasks' centroids, (tasks, p)."""
        return self.centroids / np.maximum(np.linalg.norm(self.centroids, axis=1, keepdims=True), 1e-12)

    def with_adapter(
        self, name: str, trait_scores: Array, rows: TrainingRows | None = None, *, gains: Array | None = None
    ) -> Self:
        """The profile with one more adapter, of projected trait scores (r,) and training `rows`; nothing else changes.

        An adapter of that name is replaced in its place. Of measured `gains` (tasks,) the profile keeps the residuals
        from what its traits and training predict; without them a small fleet would take the newcomer for one it
        resembles.
        """
        training, weights = TrainingProfiles.of([rows], self.features), np.median(self.evidence_weights, axis=0)
        scores = trait_scores[: self.trait_scores.shape[1]]
        demand = self.demand.of(self.centroids)[:, : 1 + len(scores)]
        evidence = training.of_tasks(self.centroids, self.words)[:, 0]
        expected = demand[:, 0] + demand[:, 1:] @ scores + evidence_gains(evidence, weights)
        residuals = np.zeros(len(self.tasks)) if gains is None else gains - expected
        added = replace(
            self,
            adapters=(*self.adapters, name),
            trait_scores=np.vstack([self.trait_scores, scores]),
            residuals=np.vstack([self.residuals, residuals]).astype(np.float32),
            training=self.training.join(training),
            evidence_weights=np.vstack([self.evidence_weights, weights]),
            corrections={n: c for n, c in self.corrections.items() if n != name},
        )
        places = list(range(len(self.adapters) + 1))
        if name in self.adapters:
            places[self.adapters.index(name)] = places.pop()
        return added.take(places)

    def take(self, places: Sequence[int]) -> Self:
        """The profile with some of its adapters, in that order."""
        kept = list(places)
        return replace(
            self,
            adapters=tuple(self.adapters[i] for i in kept),
            trait_scores=self.trait_scores[kept],
            residuals=self.residuals[kept],
            training=self.training.take(kept),
            evidence_weights=self.evidence_weights[kept],
        )

    def to_bytes(self) -> bytes:
        """Serialise as documented in this module."""
        header = {"format": FORMAT, "adapters": self.adapters, "tasks": self.tasks, "alpha": self.demand.alpha}
        header |= {name: getattr(self, name) for name in _HEADER} | {"novelty": asdict(self.novelty)}
        if self.corrections:
            header["corrections"] = dict(self.corrections)
        tensors = {name: getattr(self, name) for name in _ARRAYS}
        tensors |= {"demand.coef": self.demand.coef, "demand.intercept": self.demand.intercept}
        for part, kind in _PARTS.items():
            tensors |= {f"{part}.{f.name}": getattr(getattr(self, part), f.name) for f in fields(kind)}
        arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        return save(arrays, metadata={"traitroute": json.dumps(header)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            RegistryError: the blob is corrupt, or of a format this version does not read.
        """
        try:
            arrays, header = load(data), _header(data)
            values: dict[str, Any] = {name: arrays[name] for name in _ARRAYS} | {name: header[name] for name in _HEADER}
            for part, kind in _PARTS.items():
                values[part] = kind(**{f.name: arrays[f"{part}.{f.name}"] for f in fields(kind)})
            return cls(
                adapters=tuple(header["adapters"]),
                tasks=tuple(header["tasks"]),
                demand=Demand(arrays["demand.coef"], arrays["demand.intercept"], header["alpha"]),
                novelty=Novelty(**header["novelty"]),
                corrections=header.get("corrections", {}),
                **values,
            )
        except (SafetensorError, KeyError, ValueError, TypeError) as exc:
            raise RegistryError(
                f"the stored routing profile cannot be read ({exc}); fit it anew: `traitroute profiles refit --force`"
            ) from exc


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["traitroute"])
    if header["format"] != FORMAT:
        raise ValueError(f"format {header['format']}, this version reads {FORMAT}")
    return header


@dataclass(frozen=True)
class Prediction:
    """What a profile predicts for one request, in score points.

    `gains` (adapters,) are predicted over the base model, with one `margin` of error for all; `novelty` is the
    probability that the request is of a kind nobody profiled. Gains are made of `demand` (1 + r,), mean gain and demand
    for each component; `residuals` (adapters,); `evidence` (adapters, kinds) from training data; and corrections from
    feedback. `similarities` (tasks,) are cosines with the mean request of each task.
    """

    profile: RoutingProfile
    gains: Array
    margin: float
    novelty: float
    demand: Array
    residuals: Array
    evidence: Array
    similarities: Array

    def parts(self, adapter: int) -> dict[str, float]:
        """The predicted gain of one adapter by its parts, which add up to it."""
        p = self.profile
        supplied = (p.trait_scores[adapter] * self.demand[1:]).tolist()
        evidence = (self.evidence[adapter] * p.evidence_weights[adapter]).tolist()
        parts = {"mean": float(self.demand[0]), **dict(zip(p.components, supplied, strict=True))}
        if p.training.known[adapter]:
            parts |= zip(KINDS, evidence, strict=True)
        if p.corrections:
            parts["feedback"] = float(p._corrections[adapter])
        if p.residuals[adapter].any():
            parts["residual"] = float(self.residuals[adapter])
        return parts

    def change(self, chosen: int | None, least_gain: float) -> Change | None:
        """The smallest change of one part of the demand by which another adapter, or base, would be chosen.

        `chosen` is the adapter chosen now (None: base); an adapter's gain must exceed `least_gain` by the margin.
        """
        if not np.isfinite(self.gains).any():
            return None
        p, least = self.profile, least_gain + self.margin
        # Gains move by one with the mean, and by its supply with each component.
        slope = np.hstack([np.ones((len(p.adapters), 1)), p.trait_scores])
        rivals: list[str | None] = list(p.adapters)
        if chosen is None:
            lack = least - self.gains
        else:
            # Base comes last: it takes over where the low end of the chosen adapter's interval falls to the least gain.
            lack = np.append(self.gains[chosen] - self.gains, least - self.gains[chosen])
            slope = np.vstack([slope - slope[chosen], slope[chosen]])
            rivals.append(None)
        usable = np.abs(slope) > 1e-12
        shift = np.where(usable, lack[:, None] / np.where(usable, slope, 1.0), np.inf)
        i, j = np.unravel_index(np.argmin(np.abs(shift)), shift.shape)
        now = float(self.demand[j])
        return Change(adapter=rivals[i], part=["mean", *p.components][j], demand=now, needed=now + float(shift[i, j]))
