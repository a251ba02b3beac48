"""A fitted routing profile: everything the router needs, as plain arrays.

Stored as one safetensors blob whose metadata holds a JSON header (format 2):

    header    adapters, tasks, n_traits, features (settings), alpha, fitted_on, and
              error_known, error_new, novelty_known, novelty_new, novelty_spread
    tensors   trait_scores (adapters, r), centroids (tasks, p), home_weights, homes.*, features.*, demand.*
"""

import json
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy.special import expit

from ..adapters import RegistryError
from .demand import DemandModel
from .features import RequestFeatures
from .home import Homes

Array = NDArray[np.float64]
Fitted = TypeVar("Fitted", RequestFeatures, DemandModel)
FORMAT = 2

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
    the rest are components kept because they predict held-out gains. `error_known` and `error_new`
    are the root-mean-square errors of predicted task gains on held-out requests of profiled tasks
    and on tasks left out of the fit, where the mean unseen mass was `novelty_known` and `novelty_new`,
    give or take `novelty_spread`; `centroids` (tasks, p) are mean features of each task. `caution` is how many
    standard errors a predicted gain must exceed zero by, so that of tasks left out `risk` are harmed.
    """

    adapters: tuple[str, ...]
    tasks: tuple[str, ...]
    trait_scores: Array
    n_traits: int
    features: RequestFeatures
    demand: DemandModel
    homes: Homes
    home_weights: Array
    centroids: Array
    error_known: float
    error_new: float
    novelty_known: float
    novelty_new: float
    novelty_spread: float
    caution: float
    risk: float
    fitted_on: int

    def error(self, novelty: Array) -> Array:
        """Standard errors of predicted gains (n,) at unseen masses `novelty` (n,).

        The squared error is the one measured on profiled tasks or the one on tasks left out, by how likely either kind is to
        show such a novelty (a linear discriminant, both kinds equally frequent). Beyond what was measured it
        grows as the share that is known shrinks: of a wholly unknown request nothing can be said.
        """
        slope = max(self.novelty_new - self.novelty_known, 0.0) / self.novelty_spread**2
        middle = (self.novelty_known + self.novelty_new) / 2
        new = expit(slope * (novelty - middle))
        beyond = np.maximum((1 - self.novelty_new) / np.maximum(1 - novelty, 1e-9), 1.0)
        return np.sqrt(((1 - new) * self.error_known**2 + new * self.error_new**2) * beyond)

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
            "novelty_known": self.novelty_known,
            "novelty_new": self.novelty_new,
            "novelty_spread": self.novelty_spread,
            "caution": self.caution,
            "risk": self.risk,
            "fitted_on": self.fitted_on,
        }
        tensors = {"trait_scores": self.trait_scores, "centroids": self.centroids}
        tensors |= {f"homes.{f.name}": getattr(self.homes, f.name) for f in fields(Homes)}
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
            features = _restore(
                RequestFeatures(**header["features"]), "features.", _FEATURE_ARRAYS, arrays
            )
            demand = _restore(DemandModel(**header["demand"]), "demand.", _DEMAND_ARRAYS, arrays)
            demand.n_features_in_ = len(demand.coef_)
            return cls(
                adapters=tuple(header["adapters"]),
                tasks=tuple(header["tasks"]),
                trait_scores=arrays["trait_scores"],
                n_traits=header["n_traits"],
                features=features,
                demand=demand,
                homes=Homes(**{f.name: arrays[f"homes.{f.name}"] for f in fields(Homes)}),
                home_weights=arrays["home_weights"],
                centroids=arrays["centroids"],
                error_known=header["error_known"],
                error_new=header["error_new"],
                novelty_known=header["novelty_known"],
                novelty_new=header["novelty_new"],
                novelty_spread=header["novelty_spread"],
                caution=header["caution"],
                risk=header["risk"],
                fitted_on=header["fitted_on"],
            )
        except (SafetensorError, KeyError, ValueError, TypeError) as exc:
            raise RegistryError(
                f"the stored routing profile cannot be read ({exc}); run `traitroute profile` again"
            ) from exc


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["traitroute"])
    if header["format"] != FORMAT:
        raise ValueError(f"format {header['format']}, this version reads {FORMAT}")
    return header


def _restore(
    estimator: Fitted, prefix: str, names: tuple[str, ...], arrays: dict[str, Any]
) -> Fitted:
    for name in names:
        setattr(estimator, name, arrays[prefix + name])
    return estimator
