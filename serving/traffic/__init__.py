"""The stream of requests, watched without keeping any text: how much of it is new, and which task would cover it."""

from .watch import DemandKeeper, DemandWatch

__all__ = ["DemandKeeper", "DemandWatch"]
