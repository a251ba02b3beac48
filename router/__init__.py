"""Request → trait demand → affinity → adapter, or the base model when no adapter is expected to help."""

from .decision import Affinity, NearTask, RoutingDecision
from .demand import DemandModel
from .features import RequestFeatures
from .fit import fit_profile
from .folds import FitRequests
from .profile import RoutingProfile
from .request import NO_TEXT, request_text
from .request_tokens import RequestTokens
from .router import Router
from .training_profiles import TrainingRows

__all__ = [
    "NO_TEXT",
    "Affinity",
    "DemandModel",
    "FitRequests",
    "NearTask",
    "RequestFeatures",
    "RequestTokens",
    "Router",
    "RoutingDecision",
    "RoutingProfile",
    "TrainingRows",
    "fit_profile",
    "request_text",
]
