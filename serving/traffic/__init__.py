"""The stream of requests, watched without keeping any text: how much of it is unlike everything profiled, and what would cover it."""

from .keeper import DemandKeeper
from .watch import DemandWatch

__all__ = ["DemandKeeper", "DemandWatch"]
