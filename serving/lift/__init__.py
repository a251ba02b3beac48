"""The gain of `auto` over base on live traffic, from conversations that were held back."""

from .outcomes import read_outcomes
from .report import Lift, LiftReport
from .routes import lift_operations

__all__ = ["Lift", "LiftReport", "lift_operations", "read_outcomes"]
