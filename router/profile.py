"""A fitted routing profile: everything the router needs, as plain arrays.

Stored as one safetensors blob whose metadata holds a JSON header (format 3):

    header    adapters, tasks, n_traits, features (settings), alpha, fitted_on, and
              error_known, error_new, novelty, caution, risk; corrections where there are any
    tensors   trait_scores (adapters, r), residuals (adapters, tasks), centroids (tasks, p), words (tasks, N_HASHES),
              home_weights, homes.*, features.*, demand.*
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..adapters import RegistryError
from .demand import DemandModel
from .features import RequestFeatures
from .novelty import Novelty
from .training_profiles import TrainingProfiles, TrainingRows, worth_of

Array = NDArray[np.float64]
Fitted = TypeVar("Fitted", RequestFeatures, DemandModel)
FORMAT = 3

_FEATURE_ARRAYS = (
    "center_",
    "scale_",
    "whole_idf_",
    "whole_basis_",
    "edges_idf_",
    "edges_basis_",
)
_DEMAND_ARRAYS = ("coef_", "intercept_")


@dataclass(frozen=True)
class RoutingProfile:
    """What adapters supply (`trait_scores`) and how to read what a request demands.

    `trait_scores` has shape (adapters, r); the first `n_traits` columns are traits above the null,
    the rest are components kept because they predict held-out gains. `residuals` (adapters, tasks) are what was measured of
    adapters that joined and is not expected by what was fitted without them. `demand` tells of a request the mean gain, the
    demand for each component, and how much there is of each task in it, (1 + r + tasks). `error_known` and `error_new`
    are the root-mean-square errors of predicted task gains on held-out requests of profiled tasks
    and on tasks left out of the fit; `centroids` (tasks, p) are mean features of each task, `words` (tasks, N_HASHES) the
    shares of its requests that have each word. `caution` is how many
    standard errors a predicted gain must exceed zero by where a request is new, so that of data sets left out `risk` are harmed,
    and `caution_known` where it is not. `corrections` are
    added to the gains predicted of some adapters, by name, as feedback has taught.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    trait_scores: Array
    residuals: NDArray[np.float32]
    n_traits: int
    features: RequestFeatures
    demand: DemandModel
    homes: TrainingProfiles
    novelty: Novelty
    home_weights: Array
    centroids: Array
    words: NDArray[np.float32]
    error_known: float
    error_new: float
    caution: float
    caution_known: float
    risk: float
    fitted_on: int
    corrections: Mapping[str, float] = field(default_factory=dict)

    def error(self, new: Array) -> Array:
        """Standard errors of predicted gains (n,) of requests that are of a new kind with probability `new` (n,).

        The squared error is the one on profiled tasks or the one on tasks left out, by how likely either kind is.
        """
        return np.sqrt((1 - new) * self.error_known**2 + new * self.error_new**2)

    def reach(self, new: Array) -> Array:
        """How far predicted gains (n,) must lie above the least gain: standard errors times caution; `new` as in `error`."""
        return ((1 - new) * self.caution_known + new * self.caution) * self.error(new)

    def with_adapter(
        self,
        name: str,
        trait_scores: Array,
        rows: TrainingRows | None = None,
        *,
        gains: Array | None = None,
    ) -> Self:
        """The profile with one more adapter, of projected trait scores (r,) and training `rows`; nothing else changes.

        One that is there already is replaced in its place. Of its measured `gains` (tasks,) the profile keeps what it would not
        expect of such traits and training, without which a small fleet would take the newcomer for its likeness.
        """
        homes, weights = (
            TrainingProfiles.of([rows], self.features),
            np.median(self.home_weights, axis=0),
        )
        scores = trait_scores[: self.trait_scores.shape[1]]
        expected = self._expected(scores, homes, weights)
        residuals = np.zeros(len(self.tasks)) if gains is None else gains - expected
        added = replace(
            self,
            adapters=(*self.adapters, name),
            trait_scores=np.vstack([self.trait_scores, scores]),
            residuals=np.vstack([self.residuals, residuals]).astype(np.float32),
            homes=self.homes.join(homes),
            home_weights=np.vstack([self.home_weights, weights]),
            corrections={n: c for n, c in self.corrections.items() if n != name},
        )
        places = list(range(len(self.adapters) + 1))
        if name in self.adapters:
            places[self.adapters.index(name)] = places.pop()
        return added.take(places)

    def _expected(self, scores: Array, homes: TrainingProfiles, weights: Array) -> Array:
        """Gains (tasks,) that are expected of one adapter, of these trait scores (r,), where it was not measured."""
        demand = self.demand.predict(self.centroids)[:, : 1 + len(scores)]
        evidence = homes.of_tasks(self.centroids, self.words)[:, 0]
        return demand[:, 0] + demand[:, 1:] @ scores + worth_of(evidence, weights)

    def take(self, places: Sequence[int]) -> Self:
        """The profile with some of its adapters, in that order."""
        kept = list(places)
        return replace(
            self,
            adapters=tuple(self.adapters[i] for i in kept),
            trait_scores=self.trait_scores[kept],
            residuals=self.residuals[kept],
            homes=self.homes.take(kept),
            home_weights=self.home_weights[kept],
        )

    def to_bytes(self) -> bytes:
        """Serialise as documented in this module."""
        header = {
            "format": FORMAT,
            "adapters": self.adapters,
            "tasks": self.tasks,
            "n_traits": self.n_traits,
            "features": self.features.get_params(),
            "demand": self.demand.get_params(),
            "error_known": self.error_known,
            "error_new": self.error_new,
            "novelty": asdict(self.novelty),
            "caution": self.caution,
            "caution_known": self.caution_known,
            "risk": self.risk,
            "fitted_on": self.fitted_on,
        }
        if self.corrections:
            header["corrections"] = dict(self.corrections)
        tensors = {"trait_scores": self.trait_scores, "centroids": self.centroids}
        tensors |= {"residuals": self.residuals, "words": self.words}
        tensors |= {f"homes.{f.name}": getattr(self.homes, f.name) for f in fields(TrainingProfiles)}
        tensors["home_weights"] = self.home_weights
        tensors |= {f"features.{n}": getattr(self.features, n) for n in _FEATURE_ARRAYS}
        tensors |= {f"demand.{n}": getattr(self.demand, n) for n in _DEMAND_ARRAYS}
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
            features = _restore(RequestFeatures(**header["features"]), "features.", _FEATURE_ARRAYS, arrays)
            demand = _restore(DemandModel(**header["demand"]), "demand.", _DEMAND_ARRAYS, arrays)
            demand.n_features_in_ = len(demand.coef_)
            return cls(
                adapters=tuple(header["adapters"]),
                tasks=tuple(header["tasks"]),
                trait_scores=arrays["trait_scores"],
                residuals=arrays["residuals"],
                n_traits=header["n_traits"],
                features=features,
                demand=demand,
                homes=TrainingProfiles(**{f.name: arrays[f"homes.{f.name}"] for f in fields(TrainingProfiles)}),
                home_weights=arrays["home_weights"],
                centroids=arrays["centroids"],
                words=arrays["words"],
                error_known=header["error_known"],
                error_new=header["error_new"],
                novelty=Novelty(**header["novelty"]),
                caution=header["caution"],
                # Profiles fitted before there were two have one for all kinds.
                caution_known=header.get("caution_known", header["caution"]),
                risk=header["risk"],
                fitted_on=header["fitted_on"],
                corrections=header.get("corrections", {}),
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


def _restore(estimator: Fitted, prefix: str, names: tuple[str, ...], arrays: dict[str, Any]) -> Fitted:
    for name in names:
        setattr(estimator, name, arrays[prefix + name])
    return estimator
