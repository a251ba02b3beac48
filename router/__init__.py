"""Request → trait demand → affinity → adapter, or the base model when no adapter is expected to help."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .corrections import Corrections
from .decision import NOVEL, Affinity, NearTask, RoutingDecision
from .features import RequestFeatures
from .meaning import MeaningEncoder, packaged_encoder
from .profile import Prediction, RoutingProfile
from .request import NO_TEXT, RequestTokens, request_text
from .router import Router
from .training_profiles import TrainingRows

if TYPE_CHECKING:
    from .fit import fit_profile
    from .folds import FitData, FitRequests

__all__ = [
    "NOVEL",
    "NO_TEXT",
    "Affinity",
    "Corrections",
    "FitData",
    "FitRequests",
    "MeaningEncoder",
    "NearTask",
    "Prediction",
    "RequestFeatures",
    "RequestTokens",
    "Router",
    "RoutingDecision",
    "RoutingProfile",
    "TrainingRows",
    "fit_profile",
    "packaged_encoder",
    "request_text",
]

# What fits needs scikit-learn and scipy, which take a second to load and which routing does without.
_FITTING = {"FitData": "folds", "FitRequests": "folds", "fit_profile": "fit"}


def __getattr__(name: str) -> Any:
    if name not in _FITTING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_FITTING[name]}", __name__), name)
