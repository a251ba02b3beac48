"""A fitted routing profile: everything needed to predict gains, as plain arrays.

A request is read as a mixture of the profiled kinds (`kinds.py`), by what holds in general and by what is near, each
as far as it is believed (`beliefs.py`). The mixture of what the kinds demand is the request's demand, and affinity is
the demand times what an adapter supplies; to it comes the evidence of what the adapter was trained on. All that holds
as far as the request is no everyday one (`everyday.py`), where adapters lose. On kinds of request that recur and were
judged (`recurring.py`), what was judged is added.

Stored as one safetensors blob whose metadata holds a JSON header (format 12):

    header    format, encoder (the digest of the token vectors behind meanings), adapters, tasks, n_traits, groups,
              error_unknown, z, risk, fitted_on
    tensors   trait_scores (adapters, r), residuals (adapters, tasks), demands (tasks, 1 + r), base (tasks,),
              weights (evidence,), everyday (features + 1,), everyday_losses (adapters,), learnt (adapters,),
              features.*, kinds.*, training.*, corrections.* where feedback taught some, and recurring.* where kinds
              were judged
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..adapters import RegistryError
from .corrections import Corrections
from .decision import Change
from .everyday import BASE_SCORE, chance, losses_of
from .features import RequestFeatures
from .guard import care, expected_base
from .kinds import VIEWS, Kinds
from .meaning import packaged_encoder
from .recurring import RecurringKinds
from .request import Request, tokens_of
from .training_profiles import IN_ALL, KINDS, TrainingProfiles, TrainingRows, in_doubt, learnt

Array = NDArray[np.float64]
FORMAT = 12
_PARTS = {
    "features": RequestFeatures,
    "kinds": Kinds,
    "training": TrainingProfiles,
    "corrections": Corrections,
    "recurring": RecurringKinds,
}
_OPTIONAL = ("corrections", "recurring")
_HEADER = ("n_traits", "groups", "error_unknown", "z", "risk", "fitted_on")
_ARRAYS = ("trait_scores", "residuals", "demands", "base", "weights", "everyday", "everyday_losses", "learnt")


@dataclass(frozen=True)
class RoutingProfile:
    """What adapters supply (`trait_scores`) and how to read what a request demands.

    `trait_scores` has shape (adapters, r); the first `n_traits` columns are traits above the null. `demands`
    (tasks, 1 + r) are the mean gain on each profiled task and its demand of each component, and `base` (tasks,) the
    base model's score there; the tasks are of so many `groups` that are alike. `residuals` (adapters, tasks) are
    measured gains, less those that traits express, of adapters that joined after the fit.

    `weights` (evidence,) say how far each view and each kind of evidence from training rows is believed; the latter
    only of an adapter that has `learnt` (adapters,) what it was trained on. By `everyday` (features + 1,) a request is
    told from those of every day, where each adapter loses `everyday_losses` (adapters,). `error_unknown` is the
    root-mean-square error of a mean gain of which nothing is known. A predicted gain must exceed zero by `z` standard
    errors, chosen so that at most a share `risk` of groups is harmed.
    `corrections`, learnt from feedback, are added to predicted gains, and so is what was judged on kinds that are
    `recurring`.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    trait_scores: Array
    residuals: NDArray[np.float32]
    n_traits: int
    groups: int
    features: RequestFeatures
    kinds: Kinds
    demands: Array
    base: Array
    weights: Array
    everyday: Array
    training: TrainingProfiles
    learnt: NDArray[np.bool_]
    everyday_losses: Array
    error_unknown: float
    z: float
    risk: float
    fitted_on: int
    corrections: Corrections | None = None
    recurring: RecurringKinds | None = None

    def predict(self, request: Request) -> "Prediction":
        """Predict the gain of every adapter over the base model on one request."""
        tokens = tokens_of(request)
        ends, meaning = self.features.split(self.features.row(tokens))
        return self._predict(ends, meaning, self.training.row(ends, meaning, tokens))

    def predict_many(self, requests: Sequence[Request]) -> "Prediction":
        """The same of n requests at once, each array with n rows: some twenty times faster."""
        tokens = [tokens_of(request) for request in requests]
        ends, meaning = self.features.split(self.features.transform(tokens))
        return self._predict(ends, meaning, self.training.evidence(ends, meaning, tokens))

    def predict_features(self, features: Array) -> "Prediction":
        """The same of n requests of which only features (n, ends + meaning) are known, and so without what training
        answers are evidence of."""
        ends, meaning = self.features.split(features)
        match = self.training.prompt_match(ends, meaning)
        return self._predict(ends, meaning, np.stack([match, np.zeros_like(match)], axis=-1))

    def _predict(self, ends: Array, meaning: Array, evidence: Array) -> "Prediction":
        """By the features (..., ends), (..., meaning) and the evidence from training rows (..., adapters, kinds)."""
        likeness = self.kinds.likeness(ends, meaning)
        (near, unknown), weights = self.kinds.near(likeness), self.weights
        everyday = chance(self.everyday, ends, meaning)
        task = (1 - everyday)[..., None]
        shares = task * (weights[0] * self.kinds.general + weights[1] * near)
        trust = task * in_doubt(unknown)[..., None]
        gains = (evidence * self.worth) @ np.ones(evidence.shape[-1])
        gains *= trust
        gains += shares.astype(np.float32) @ self._gains_of_kinds.T
        gains -= self.everyday_losses * everyday[..., None]
        base = expected_base(self._general_base, near @ self.base, weights, self.groups)
        base = base + everyday * (BASE_SCORE - base)
        error = self.error(unknown, base)
        corrections = None if self.corrections is None else self.corrections.of(likeness)
        if corrections is not None:
            gains += corrections
        predicted = Prediction(self, gains, error, base, likeness, everyday, shares, evidence, trust, corrections)
        if self.recurring is None:
            return predicted
        return predicted.judged_by(self.recurring, self.recurring.of(self.kinds, likeness, ends, meaning))

    def error(self, unknown: Array, base: Array) -> Array:
        """Standard errors (...) of gains predicted for requests of which the share `unknown` (...) of the variance is
        not explained, and that the base model is expected to answer with the score `base` (...)."""
        return self.error_unknown * np.sqrt(unknown) * care(base)

    @cached_property
    def worth(self) -> Array:
        """What full evidence of each kind is worth for each adapter, (adapters, kinds): training prompts tell in place
        of what an adapter gains in general."""
        general = self._gains_of_kinds @ self.kinds.general
        worth = np.tile(self.weights[len(VIEWS) :], (len(self.adapters), 1))
        worth[:, 0] -= self.weights[0] * general
        return worth * self.learnt[:, None]

    @cached_property
    def _gains_of_kinds(self) -> NDArray[np.float32]:
        """What each adapter is told to gain on each kind: its affinity to what the kind demands, and what traits do not
        express, (adapters, tasks)."""
        affinity = self.demands[:, 0] + self.trait_scores @ self.demands[:, 1:].T
        return (affinity + self.residuals).astype(np.float32)

    @cached_property
    def _general_base(self) -> Array:
        """The base model's mean score in general, ()."""
        return np.asarray(self.kinds.general @ self.base)

    @cached_property
    def components(self) -> list[str]:
        """Names of the columns of `trait_scores`."""
        r = self.trait_scores.shape[1]
        return [f"trait {i + 1}" if i < self.n_traits else f"component {i + 1}" for i in range(r)]

    @cached_property
    def centroids(self) -> Array:
        """Mean features of each task, (tasks, p)."""
        return np.hstack([self.kinds.words, self.kinds.meaning]).astype(np.float64)

    def with_adapter(
        self,
        name: str,
        trait_scores: Array,
        rows: TrainingRows | None = None,
        *,
        gains: Array | None = None,
        everyday_loss: float | None = None,
    ) -> Self:
        """The profile with one more adapter, of projected trait scores (r,) and training `rows`; nothing else changes.

        An adapter of that name is replaced in its place. Of measured `gains` (tasks,) the profile keeps the residuals
        from what its traits express; without them a small fleet would take the newcomer for one it resembles.
        `everyday_loss` is what it loses on everyday requests, in score points (None: not known).
        """
        each = self.training.places
        had = int(each[self.adapters.index(name)]) if name in self.adapters else 0
        training = TrainingProfiles.of([rows], self.features, room=max(IN_ALL - int(each.sum()), 0) + had)
        scores = trait_scores[: self.trait_scores.shape[1]]
        residuals = np.zeros(len(self.tasks))
        known = np.ones(1, dtype=bool)
        if gains is not None:
            residuals = gains - (self.demands[:, 0] + self.demands[:, 1:] @ scores)
            known = learnt(training.match_kinds(self.kinds), gains[:, None])
        added = replace(
            self,
            adapters=(*self.adapters, name),
            trait_scores=np.vstack([self.trait_scores, scores]),
            residuals=np.vstack([self.residuals, residuals]).astype(np.float32),
            training=self.training.join(training),
            learnt=np.concatenate([self.learnt, known]),
            everyday_losses=np.concatenate([self.everyday_losses, losses_of([everyday_loss])]),
            corrections=self.corrections and self.corrections.with_adapter(),
            recurring=self.recurring and self.recurring.with_adapter(),
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
            learnt=self.learnt[kept],
            everyday_losses=self.everyday_losses[kept],
            corrections=self.corrections and self.corrections.take(kept),
            recurring=self.recurring and self.recurring.take(kept),
        )

    def with_kind(self, name: str, features: Array, beyond: Array, error: float) -> Self:
        """The profile with a recurring kind, of requests with these features (n, p): mean gains judged `beyond` those
        predicted (adapters,), 0 where an adapter was not judged, with a standard `error`. A kind of that name is
        replaced."""
        added = RecurringKinds.one(name, *self.features.split(features), beyond, error)
        kept = self.without_kind(name) if self.recurring is not None and name in self.recurring.names else self
        return replace(kept, recurring=added if kept.recurring is None else kept.recurring.join(added))

    def without_kind(self, name: str) -> Self:
        """The profile without a recurring kind.

        Raises:
            RegistryError: it has no such kind.
        """
        names = self.recurring.names if self.recurring is not None else ()
        if self.recurring is None or name not in names:
            raise RegistryError(f"the profile has no recurring kind {name!r}; it has: {', '.join(names) or 'none'}")
        return replace(self, recurring=self.recurring.without(names.index(name)))

    def to_bytes(self) -> bytes:
        """Serialise as documented in this module."""
        header = {"format": FORMAT, "encoder": packaged_encoder().digest}
        header |= {"adapters": self.adapters, "tasks": self.tasks}
        header |= {name: getattr(self, name) for name in _HEADER}
        tensors = {name: getattr(self, name) for name in _ARRAYS}
        for part, kind in _PARTS.items():
            if (value := getattr(self, part)) is not None:
                tensors |= {f"{part}.{f.name}": getattr(value, f.name) for f in fields(kind)}
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
                if part not in _OPTIONAL or any(name.startswith(f"{part}.") for name in arrays):
                    values[part] = kind(**{f.name: arrays[f"{part}.{f.name}"] for f in fields(kind)})
            return cls(adapters=tuple(header["adapters"]), tasks=tuple(header["tasks"]), **values)
        except (SafetensorError, KeyError, ValueError, TypeError) as exc:
            raise RegistryError(
                f"the stored routing profile cannot be read ({exc}); fit it anew: `traitroute profiles refit --force`"
            ) from exc


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["traitroute"])
    if header["format"] != FORMAT:
        raise ValueError(f"format {header['format']}, this version reads {FORMAT}")
    if header["encoder"] != (known := packaged_encoder().digest):
        raise ValueError(f"fitted with the token vectors {header['encoder']}, this version has {known}")
    return header


@dataclass(frozen=True)
class Prediction:
    """What a profile predicts for one request, in score points; of n requests every array has n rows before.

    `gains` (adapters,) are predicted over the base model, with one standard `error` () for all; `base` () is the score
    expected of the base model. `likeness` (tasks,), from 0 to 1, says how like the request is to each profiled task,
    `everyday` () how likely it is an everyday one, and `shares` (tasks,), some of which are negative, as what mixture
    of tasks it is read. Gains are made of what adapters gain on these tasks, by their traits and their residuals; the
    `evidence` (adapters, kinds) from training data, as far as there is `trust` (1,) in it; what adapters lose on
    everyday requests; `corrections` (adapters,) from feedback, where there are any; and on requests of a recurring
    kind, which `kind` () names by its place (-1: of none), what was `judged` (adapters,) beyond all these.
    """

    profile: RoutingProfile
    gains: Array
    error: Array
    base: Array
    likeness: Array
    everyday: Array
    shares: Array
    evidence: Array
    trust: Array
    corrections: Array | None = None
    kind: NDArray[np.intp] | None = None
    judged: Array | None = None

    def judged_by(self, recurring: RecurringKinds, kind: NDArray[np.intp]) -> Self:
        """The prediction where requests are of these recurring kinds (...), -1 for none: what was judged is added."""
        is_one = kind >= 0
        judged = np.where(is_one[..., None], recurring.beyond[kind], 0.0)
        return replace(
            self,
            gains=self.gains + judged,
            error=np.where(is_one, recurring.errors[kind], self.error),
            kind=kind,
            judged=judged,
        )

    @property
    def recurring(self) -> str | None:
        """The recurring kind that the one request is of."""
        if self.kind is None or self.profile.recurring is None or self.kind < 0:
            return None
        return self.profile.recurring.names[int(self.kind)]

    @cached_property
    def demand(self) -> Array:
        """Mean gain and demand for each component, (1 + r,)."""
        return self.shares @ self.profile.demands

    @property
    def margin(self) -> Array:
        """By how much a gain must exceed the least gain, ()."""
        return self.profile.z * self.error

    @property
    def novelty(self) -> float:
        """How unlike the request is to the profiled task that is most like it, from 0 to 1."""
        return 1 - float(self.likeness.max())

    def parts(self, adapter: int) -> dict[str, float]:
        """The predicted gain of one adapter by its parts, which add up to it."""
        p = self.profile
        mean, *demand = self.demand.tolist()
        supplied = (p.trait_scores[adapter] * demand).tolist()
        parts = {"mean": mean, **dict(zip(p.components, supplied, strict=True))}
        if p.training.known[adapter]:
            parts |= zip(KINDS, (self.evidence[adapter] * p.worth[adapter] * self.trust).tolist(), strict=True)
        parts["everyday"] = -float(p.everyday_losses[adapter] * self.everyday)
        if self.corrections is not None:
            parts["feedback"] = float(self.corrections[adapter])
        if p.residuals[adapter].any():
            parts["residual"] = float(p.residuals[adapter] @ self.shares)
        if self.judged is not None and self.kind is not None and self.kind >= 0:
            parts["judged"] = float(self.judged[adapter])
        return parts

    def change(self, chosen: int | None, least_gain: float) -> Change | None:
        """The smallest change of one part of the demand by which another adapter, or base, would be chosen.

        `chosen` is the adapter chosen now (None: base); an adapter's gain must exceed `least_gain` by the margin.
        """
        if not np.isfinite(self.gains).any():
            return None
        p, least = self.profile, least_gain + float(self.margin)
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
