"""The gain of `auto` over base on live traffic, from conversations that were held back."""

from .canary import CanaryFigures, read_figures, take_step, take_steps
from .outcomes import read_outcomes
from .report import Lift, LiftReport
from .routes import lift_operations

__all__ = [
    "CanaryFigures",
    "Lift",
    "LiftReport",
    "lift_operations",
    "read_figures",
    "read_outcomes",
    "take_step",
    "take_steps",
]
