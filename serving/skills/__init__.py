"""Skills for agents: which adapter a sub-task needs, why, and at what risk, before or without generating."""

from .models import (
    FeedbackKept,
    FeedbackRequest,
    Matrix,
    Plan,
    PlanRequest,
    Selection,
    SelectRequest,
    SkillCard,
    SkillList,
    TraitMap,
)
from .skills import Skills

__all__ = [
    "FeedbackKept",
    "FeedbackRequest",
    "Matrix",
    "Plan",
    "PlanRequest",
    "SelectRequest",
    "Selection",
    "SkillCard",
    "SkillList",
    "Skills",
    "TraitMap",
]
