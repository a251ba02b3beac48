"""Sections of the report: findings in; pictures, tables and captions made from the numbers out."""

from .ablations import ablation_section
from .classes import class_section
from .forecast import forecast_section
from .gains import gain_section
from .lengths import length_section
from .similarity import similarity_section
from .syntax import syntax_section
from .traits import trait_section

__all__ = [
    "ablation_section",
    "class_section",
    "forecast_section",
    "gain_section",
    "length_section",
    "similarity_section",
    "syntax_section",
    "trait_section",
]
