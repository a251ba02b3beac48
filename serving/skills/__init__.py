"""Skills for agents: which adapter a sub-task needs, why, and at what risk, before or without generating."""

from .models import (
    Feedback,
    FeedbackKept,
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
from .snapshot import Snapshot

__all__ = [
    "Feedback",
    "FeedbackKept",
    "Matrix",
    "Plan",
    "PlanRequest",
    "SelectRequest",
    "Selection",
    "SkillCard",
    "SkillList",
    "Skills",
    "Snapshot",
    "TraitMap",
]
